"""Secrets that are planted everywhere, and looked for in every byte that a logger has written."""

import json
from pathlib import Path

import pytest

from ..logged_rows import config_of, finish_all, log, scores_of, train
from .reading import tensors, wandb_files, wandb_records

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


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Outputs, and a home, where nothing is told but by the planted environment."""
    environment = {
        "SOME_SERVICE_TOKEN": IN_ENVIRONMENT,
        "HTTPS_PROXY": f"http://me:{IN_PROXY}@127.0.0.1:9",
        "WANDB_BASE_URL": f"http://me:{IN_CONFIG}@127.0.0.1:9",
        "WANDB_API_KEY": API_KEY,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DATA_DIR": str(tmp_path / "wandb" / ".data"),
        "WANDB_CACHE_DIR": str(tmp_path / "wandb" / ".cache"),
        "HOME": str(tmp_path / "home"),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": str(tmp_path / "mlflow" / "store"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["csv", "tensorboard", "wandb", pytest.param("mlflow", marks=pytest.mark.slow)]
)
def test_no_secret_reaches_what_a_logger_writes(name, place, capfd):
    config = config_of(
        place,
        f"logger={name}",
        *LOGGERS[name],
        f"student.model='{URL}'",
        f"models.checkpoints.main.model='{URL}'",
        f"recipe.title='with {IN_ENVIRONMENT} and {TOKEN}'",
    )
    finish_all(config, text=TEXT, until="student")
    train(scores_of(config).inputs["student"], place, 2)
    log(config, None, f"lost {TEXT}")
    content = written(place, name)
    assert any(b"lost <thinking>ordinary [removed]" in one for one in content)
    finish_all(config, text=TEXT)
    log(config)
    content |= written(place, name)
    shown = "".join(capfd.readouterr())
    for secret in PLANTED:
        found = [one for one in content if secret.encode() in one]
        assert not [(one[:200], one[one.find(secret.encode()) - 80 :][:200]) for one in found]
        assert secret not in shown
    READ[name](place)


def written(outputs: Path, name: str) -> set[bytes]:
    """The names and bytes of all that a logger has written, here or at home."""
    if name == "wandb":
        import wandb

        wandb.teardown()  # its process has written all
    found = (path for kept in (name, "home") for path in (outputs / kept).rglob("*"))
    return {str(path).encode() + b"\n" + path.read_bytes() for path in found if path.is_file()}


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
    _, second = wandb_files(outputs, "scores")
    artifacts = [r["artifact"] for r in wandb_records(second) if r["type"] == "artifact"]
    (made,) = (a for a in artifacts if a["type"] == "scores")
    # The samples hold secrets, and so stay here; the figures do not.
    names = {entry["path"] for entry in made["manifest"]["contents"]}
    assert names == {"manifest.json", "figures.json", "files/results.json"}


READ = {"csv": _csv, "tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}


def _folder(outputs: Path, name: str, kind: str) -> Path:
    (found,) = (outputs / name / "rows").glob(f"{kind}-*")
    return found
