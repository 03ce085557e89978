"""What MLflow holds of a row, by its own client."""

import json
import socket
from pathlib import Path

import pytest

from ..logged_rows import STEPS, config_of, finish_all, log, scores_of, train
from .reading import run_row


def read(address):
    """A client, and the runs by their names."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("marco")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return client, {run.info.run_name: run for run in runs}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A row that failed once, in MLflow's store of files: a database takes seconds to make."""
    outputs = tmp_path_factory.mktemp("row")
    address = str(outputs / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        config = config_of(outputs, "logger=mlflow", f"logger.address={address}")
        finish_all(config, until="student")
        train(scores_of(config).inputs["student"], outputs, 2)
        log(config, None, "it was poisoned")
        states = {name: run.info.status for name, run in read(address)[1].items()}
        finish_all(config)
        log(config)
        yield states, *read(address)


def test_a_failed_row_goes_on_in_the_same_runs(held):
    before, _, runs = held
    assert before["cdpo-seed0"] == before["conservative-smollm2_135m-s0"] == "FAILED"
    assert {run.info.status for run in runs.values()} == {"FINISHED"} and len(runs) == 6


def test_a_curve_goes_on_where_the_attempt_before_ended(held):
    _, client, runs = held
    run = runs["conservative-smollm2_135m-s0"]
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((p.step, p.value) for p in points) == [(i, 1 / i) for i in range(1, STEPS + 1)]


def test_a_run_holds_parameters_tags_and_figures(held):
    row = held[2]["cdpo-seed0"]
    assert row.data.params["loss.preference.epsilon"] == "0.1"
    assert row.data.tags["group"] == "rows" and row.data.tags["job_type"] == "scores"
    assert row.data.tags["tag.cdpo"] == "true"
    assert row.data.metrics["arithmetic/accuracy"] == 0.5


def test_samples_trees_and_lineage_are_artifacts(held):
    _, client, runs = held
    row = Path(runs["cdpo-seed0"].info.artifact_uri)
    assert len(json.loads((row / "samples.json").read_text())["data"]) == 40
    told = json.loads((row / "lineage.json").read_text())
    assert [one["kind"] for one in told["from"]] == ["student"]
    assert json.loads((row / "scores" / "manifest.json").read_text())["stage"] == "scores"
    (trees,) = (run for run in runs.values() if run.data.tags["job_type"] == "trees")
    assert client.list_artifacts(trees.info.run_id, "trees")


@pytest.mark.slow
def test_without_an_address_a_database_lies_below_the_outputs(tmp_path):
    told = run_row(tmp_path, "finish", "logger=mlflow", env={"HOME": str(tmp_path / "home")})
    assert told.returncode == 0 and not told.stdout, told
    _, runs = read(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    assert {run.info.status for run in runs.values()} == {"FINISHED"} and len(runs) == 6
    row = runs["cdpo-seed0"]
    assert row.info.artifact_uri.startswith((tmp_path / "mlflow" / "artifacts").as_uri())


@pytest.mark.slow
def test_a_server_that_never_answers_costs_a_bounded_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        told = run_row(
            tmp_path, "finish", "logger=mlflow", f"logger.address={address}", "logger.finish_s=80"
        )
    assert told.returncode == 0, told.stderr
    assert "the logger could not start" in told.stdout
    assert "not finished in" not in told.stdout
