"""Secrets that are planted everywhere, and looked for in every byte that a logger has written."""

import json
import os
from pathlib import Path

import pytest

from .reading import run_row, tensors, wandb_files, wandb_records

IN_ENVIRONMENT = "sesame-open-please"
IN_PROXY = "proxy-word-9"
IN_CONFIG = "config-word-7"
IN_QUERY = "query-word-5"
API_KEY = "0123456789abcdef" * 3
TOKEN = "hf_abcdefghijklmnopqrstuv"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl"
ALONE = [IN_ENVIRONMENT, IN_PROXY, IN_CONFIG, IN_QUERY, API_KEY, TOKEN]
PLANTED = [*ALONE, "c2lnbmF0dXJl"]
URL = f"https://me:{IN_CONFIG}@host.example/v1?api_key={IN_QUERY}"
TEXT = f"<thinking>ordinary {' '.join(ALONE)} {URL} {JWT} text</thinking>"
LOGGERS = {
    "csv": (),
    "tensorboard": (),
    "mlflow": (),
    "wandb": ("logger.mode=offline", "logger.artifacts=files"),
}

FAIL_FIRST = {"csv", "wandb"}  # errors come to all loggers on one way


def environment(outputs: Path) -> dict[str, str]:
    return {
        "SOME_SERVICE_TOKEN": IN_ENVIRONMENT,
        "HTTPS_PROXY": f"http://me:{IN_PROXY}@127.0.0.1:9",
        "WANDB_BASE_URL": f"http://me:{IN_CONFIG}@127.0.0.1:9",
        "WANDB_API_KEY": API_KEY,
        "HOME": str(outputs / "home"),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": str(outputs / "mlflow" / "store"),
    }


@pytest.mark.parametrize("name", LOGGERS)
def test_no_secret_reaches_what_a_logger_writes(name, tmp_path):
    overrides = (
        f"logger={name}",
        *LOGGERS[name],
        f"student.model='{URL}'",
        f"models.checkpoints.main.model='{URL}'",
        f"recipe.title='with {IN_ENVIRONMENT} and {TOKEN}'",
    )
    env = environment(tmp_path)
    shown = ""
    if name in FAIL_FIRST:
        failed = run_row(tmp_path, "fail", *overrides, text=f"lost {TEXT}", env=env)
        assert failed.returncode == 1 and "SystemError" in failed.stderr
        shown = failed.stdout  # what the row itself raises is its own to tell, on the other stream
    told = run_row(tmp_path, "finish", *overrides, text=TEXT, env=env)
    assert told.returncode == 0, told.stderr
    shown += told.stdout + told.stderr
    written = [p for p in (tmp_path / name).rglob("*") if p.is_file()]
    written += [p for p in (tmp_path / "home").rglob("*") if p.is_file()]
    content = {str(path).encode() + b"\n" + path.read_bytes() for path in written}
    assert any(b"ordinary" in one for one in content)  # the texts themselves are there
    for secret in PLANTED:
        assert not [one[:300] for one in content if secret.encode() in one], secret
        assert secret not in shown
    READ[name](tmp_path)


def _csv(outputs: Path) -> None:
    row = _folder(outputs, "csv", "scores")
    assert json.loads((row / "run.json").read_text())["state"] == "finished"
    assert json.loads((row / "summary.json").read_text())["arithmetic/accuracy"] == 0.5
    sample = json.loads((row / "samples.jsonl").read_text().splitlines()[0])
    assert "[removed]" in sample["response"] and "ordinary" in sample["response"]


def _tensorboard(outputs: Path) -> None:
    scalars, _ = tensors(_folder(outputs, "tensorboard", "scores"))
    assert scalars["final/arithmetic/accuracy"][-1] == (0, 0.5)


def _mlflow(outputs: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(str(outputs / "mlflow" / "store"))
    experiment = client.get_experiment_by_name("marco")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}


def _wandb(outputs: Path) -> None:
    first, second = wandb_files(outputs, "scores")
    assert "[removed]" in first.read_bytes().decode("utf-8", "replace")  # the error
    artifacts = [r["artifact"] for r in wandb_records(second) if r["type"] == "artifact"]
    (made,) = (a for a in artifacts if a["type"] == "scores")
    # The samples hold secrets, and so stay here; the figures do not.
    names = {entry["path"] for entry in made["manifest"]["contents"]}
    assert names == {"manifest.json", "figures.json", "files/results.json"}


READ = {"csv": _csv, "tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}


def _folder(outputs: Path, name: str, kind: str) -> Path:
    (found,) = (outputs / name / "rows").glob(f"{kind}-*")
    return found


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    assert "SOME_SERVICE_TOKEN" not in os.environ
