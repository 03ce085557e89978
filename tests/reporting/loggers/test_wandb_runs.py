"""What W&B would be sent, from the files that its own process has written."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from marco.manifest import MANIFEST
from marco.reporting.config import WandbConfig
from marco.reporting.loggers.protocol import RunInfo
from marco.reporting.loggers.wandb_runs import WandbLogger, mode_of

from ..logged_rows import STEPS, below, config_of, finish_all, log, scores_of
from .reading import (
    ROOT,
    command,
    histories,
    run_row,
    wandb_files,
    wandb_records,
    wandb_summary,
)

STEP = "trainer/global_step"
OFFLINE = ("logger=wandb", "logger.mode=offline")


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """A finished row that was logged offline: its config, its outputs."""
    import wandb

    outputs = tmp_path_factory.mktemp("row")
    config = config_of(outputs, *OFFLINE, "logger.samples=6", "logger.trees=2")
    finish_all(config, text="<b>\ud800</b>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(outputs / "home"))
        patch.setenv("WANDB_DATA_DIR", str(outputs / "data"))
        patch.setenv("WANDB_CACHE_DIR", str(outputs / "cache"))
        patch.delenv("WANDB_API_KEY", raising=False)
        log(config)
        wandb.teardown()
    return config, outputs


def records_of(row, job_type):
    (file,) = wandb_files(row[1], job_type)
    return wandb_records(file)


def only(records, kind):
    return [record[kind] for record in records if record["type"] == kind]


def test_the_rows_run_is_named_grouped_and_tagged(row):
    (run,) = only(records_of(row, "scores"), "run")
    assert (run["run_group"], run["job_type"], run["display_name"]) == (
        "rows",
        "scores",
        "cdpo-seed0",
    )
    assert sorted(run["tags"]) == ["cdpo", "rows", "smollm2_135m"]
    assert run["resume"] is True
    assert not run.get("host") and "git" not in run
    told = run["config"]["update"]
    assert told["row"] == "cdpo" and told["loss"]["preference"]["epsilon"] == 0.1
    assert "engine" not in told and "outputs" not in told


def test_curves_have_axes_of_their_own(row):
    (file, other) = wandb_files(row[1], "student")
    sft = file if "sft" in str(file) else other
    records = wandb_records(sft)
    defined = {m["name"]: m.get("step_metric") for m in only(records, "metric")}
    assert defined == {STEP: None, "train/loss": STEP, "validation/loss": STEP}
    assert histories(records, "train/loss") == [1 / step for step in range(1, STEPS + 1)]
    assert histories(records, STEP) == list(range(1, STEPS + 1))
    records = records_of(row, "scores")
    defined = {m["name"]: m.get("step_metric") for m in only(records, "metric")}
    assert defined["arithmetic/test_at_tries"] == "arithmetic/tries"
    assert histories(records, "arithmetic/test_at_tries") == [0.5, 1.0]


def test_the_summary_holds_every_tasks_figures_and_the_run_has_finished(row):
    (file,) = wandb_files(row[1], "scores")
    told = wandb_summary(file)
    assert (told["state"], told["exit_code"]) == ("finished", 0)
    assert told["summary"]["arithmetic/accuracy"] == 0.5
    assert told["summary"]["arithmetic/no_answer"] == 0.25
    assert told["summary"]["train/last/margin_length_correlation"] == -0.25


def test_samples_are_a_table_and_trees_are_pages_where_text_stays_text(row):
    (file,) = wandb_files(row[1], "scores")
    (path,) = file.parent.glob("files/media/table/*.json")
    table = json.loads(path.read_text())
    assert {"prompt", "response", "verdict", "error_classes"} <= set(table["columns"])
    assert len(table["data"]) == 6
    (file,) = wandb_files(row[1], "trees")
    pages = [path.read_text() for path in file.parent.glob("files/media/html/*.html")]
    assert len(pages) == 2
    assert all(r"\u003cb>?\u003c/b>" in page and "<b>?" not in page for page in pages)


def test_artifacts_lead_from_trees_to_scores(row):
    config, outputs = row
    made, used = {}, {}
    for kind in ("trees", "dataset", "student", "scores"):
        for file in wandb_files(outputs, kind):
            for artifact in only(wandb_records(file), "artifact"):
                if artifact["type"] == "run_table":
                    continue
                key = json.loads(artifact["metadata"])["key"]
                if artifact.get("use_after_commit"):
                    used.setdefault(file, {})[key] = artifact["digest"]
                else:
                    assert artifact["type"] == kind and file not in made
                    made[file] = (key, artifact["digest"])
                    assert sorted(artifact["aliases"]) == sorted(["latest", key[:8]])
    digests = dict(made.values())
    stages = {s.key: s for s in below(scores_of(config)) if s.kind != "reference"}
    assert set(digests) == set(stages)
    for file, (key, _) in made.items():
        inputs = {v.key for v in stages[key].inputs.values() if v.kind != "reference"}
        # The same digest: W&B takes what one run used for what the other made.
        assert used.get(file, {}) == {k: digests[k] for k in inputs}


def test_artifacts_hold_hashes_and_figures_but_no_weights_and_no_places(row):
    config, outputs = row
    for file in wandb_files(outputs, "student"):
        for artifact in only(wandb_records(file), "artifact"):
            entries = artifact["manifest"]["contents"]
            assert {e["path"] for e in entries} == {"manifest.json", "figures.json"}
    staged = [path.read_text() for path in (outputs / "data").rglob("*") if path.is_file()]
    manifests = [json.loads(text) for text in staged if '"stage"' in text]
    assert {m["stage"] for m in manifests} == {"trees", "dataset", "student", "scores"}
    assert not [text for text in staged if str(outputs) in text]
    student = scores_of(config).inputs["student"].folder(outputs)
    sealed = json.loads((student / MANIFEST).read_text())["files"]
    assert sealed in [m["files"] for m in manifests]


@pytest.mark.slow
def test_a_killed_row_shows_as_failed_and_goes_on_in_the_same_run(tmp_path):
    env = os.environ | {"HOME": str(tmp_path / "home")}
    options = dict(cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command(tmp_path, "train", *OFFLINE), **options) as process:
        assert process.stdout is not None
        assert "in training" in process.stdout.readline()
        _until(lambda: wandb_files(tmp_path, "student") and _has_steps(tmp_path))
        process.send_signal(signal.SIGKILL)
    _until(lambda: len(list(tmp_path.glob("wandb/rows/*/logged.json"))) == 5)
    (before,) = wandb_files(tmp_path, "student-conservative")
    told = wandb_summary(before)
    assert (told["state"], told["exit_code"]) == ("failed", 1)
    assert told["summary"]["error"] == "the row's process was killed"
    (row,) = wandb_files(tmp_path, "scores")
    assert wandb_summary(row)["state"] == "failed"
    run_row(tmp_path, "finish", *OFFLINE, env=env).check_returncode()
    first, second = wandb_files(tmp_path, "student-conservative")
    assert wandb_summary(second)["state"] == "finished"
    assert wandb_summary(second)["run_id"] == told["run_id"]
    assert histories(wandb_records(first), STEP) == [1, 2]
    assert histories(wandb_records(second), STEP) == [3, 4]


def _has_steps(outputs):
    (file,) = wandb_files(outputs, "student-conservative")
    return STEP in wandb_summary(file)["summary"]


def _until(is_so, *, tries=600):
    for _ in range(tries):
        try:
            if is_so():
                return
        except (subprocess.CalledProcessError, ValueError):  # nothing was written yet
            pass
        time.sleep(0.2)
    raise AssertionError("it never came to that")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refuses", "never answers"])
def test_a_server_that_is_down_costs_a_bounded_time_and_no_figure(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if kind == "refuses":
            server.close()
        env = {
            "HOME": str(tmp_path / "home"),
            "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        }
        told = run_row(
            tmp_path, "finish", "logger=wandb", "logger.mode=online", "logger.finish_s=60", env=env
        )
    assert told.returncode == 0, told.stderr
    assert "W&B could not start online, runs stay here" in told.stdout
    assert "not finished in" not in told.stdout
    assert "0" * 40 not in told.stdout + told.stderr
    file = wandb_files(tmp_path, "scores")[-1]
    told = wandb_summary(file)
    assert told["state"] == "finished" and told["summary"]["arithmetic/accuracy"] == 0.5
    for kind, count in {"trees": 1, "dataset": 2, "student": 2}.items():
        assert len({file.parent.parent.parent for file in wandb_files(tmp_path, kind)}) == count


class FakeRun:
    """A run of W&B's that is lost where it is told to be."""

    def __init__(self, mode, *, is_lost=False):
        self.mode, self.is_lost, self.codes, self.summary = mode, is_lost, [], {STEP: 7}

    def finish(self, exit_code):
        self.codes.append(exit_code)
        if self.is_lost:
            raise TimeoutError("still uploading")


@pytest.fixture
def server(monkeypatch):
    """Stands for W&B: `answers` says what each online start comes to, `calls` what was asked."""
    state = {"answers": [], "calls": []}

    def init(**told):
        state["calls"].append(told["mode"])
        answer = state["answers"].pop(0) if told["mode"] == "online" else FakeRun("offline")
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("wandb.teardown", lambda: state["calls"].append("teardown"))
    return state


def start(logger, tmp_path, name="a"):
    return logger.start(
        RunInfo(
            id=name,
            name="n" * 200,
            group="g",
            job_type="scores",
            tags=("t" * 70,),
            config={},
            folder=tmp_path / name,
        )
    )


def test_an_online_run_goes_on_after_the_last_step_that_the_server_has(server, tmp_path):
    server["answers"] = [FakeRun("online")]
    assert start(WandbLogger(config_with(mode="online")), tmp_path).last_step == 7
    assert server["calls"] == ["online"]


def test_a_server_that_cannot_be_reached_is_not_asked_again(server, tmp_path, capsys):
    logger = WandbLogger(config_with(mode="online"))
    server["answers"] = [ConnectionError("http://me:password1@host is down\nand a tail")]
    assert start(logger, tmp_path).run.mode == "offline"
    assert start(logger, tmp_path, "b").run.mode == "offline"
    # W&B's process would hold the id of the run that did not start.
    assert server["calls"] == ["online", "teardown", "offline", "offline"]
    told = capsys.readouterr().out
    assert "runs stay here: http://[removed]@host is down" in told and "tail" not in told


def test_a_run_that_does_not_start_beside_an_open_one_waits_for_its_end(server, tmp_path):
    logger = WandbLogger(config_with(mode="online"))
    server["answers"] = [FakeRun("online"), ConnectionError("down")]
    first = start(logger, tmp_path)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="when the row has ended"):
            start(logger, tmp_path, "b")
    first.close(failed=True)
    assert first.run.codes == [1]
    assert start(logger, tmp_path, "b").run.mode == "offline"
    assert server["calls"] == ["online", "online", "teardown", "offline"]


def test_after_an_upload_that_did_not_end_runs_stay_here(server, tmp_path):
    logger = WandbLogger(config_with(mode="online"))
    server["answers"] = [FakeRun("online", is_lost=True)]
    with pytest.raises(TimeoutError):
        start(logger, tmp_path).close(failed=False)
    assert start(logger, tmp_path, "b").run.mode == "offline"


@pytest.mark.parametrize(
    ("environment", "mode", "found"),
    [
        ({}, "auto", "offline"),
        ({"WANDB_API_KEY": "x"}, "auto", "online"),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "disabled"}, "auto", "disabled"),
        ({"WANDB_API_KEY": "x"}, "offline", "offline"),
        ({"WANDB_MODE": "offline"}, "online", "online"),
    ],
)
def test_mode_comes_from_the_config_and_for_auto_from_the_environment(
    environment, mode, found, monkeypatch
):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mode_of(config_with(mode=mode)) == found


def config_with(*, mode):
    return WandbConfig(
        name="wandb",
        mode=mode,
        project="p",
        entity=None,
        artifacts="none",
        every_s=1,
        finish_s=1,
        samples=0,
        trees=0,
        sections=(),
    )
