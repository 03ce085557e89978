"""Runs in MLflow: on a tracking server, or in a database below the outputs."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from marco.reporting.config import MlflowConfig
from marco.reporting.loggers.protocol import STEP, Artifact, RunInfo

ID, LAST_STEP = "marco.id", "marco.last_step"  # tags of a run
# What the store takes: characters of a parameter or tag, entries of a batch.
LONGEST, PARAMS_AT_ONCE, METRICS_AT_ONCE = 5000, 100, 500


class MlflowRun:
    """A run of MLflow's; the same id goes on with the same one, as failed or killed as it was."""

    def __init__(self, client: MlflowClient, experiment: str, info: RunInfo) -> None:
        self.client = client
        tags = {ID: info.id, "group": info.group, "job_type": info.job_type}
        tags |= {_name(f"tag.{tag[:200]}"): "true" for tag in info.tags}
        found = client.search_runs([experiment], f"tags.`{ID}` = '{info.id}'", max_results=1)
        if found:
            self.id = found[0].info.run_id
            client.update_run(self.id, status="RUNNING")
        else:
            self.id = client.create_run(experiment, run_name=info.name, tags=tags).info.run_id
            params = [Param(_name(name), text[:LONGEST]) for name, text in _flat(info.config)]
            for some in _batches(params, PARAMS_AT_ONCE):
                client.log_batch(self.id, params=some)
        self.last_step = int(found[0].data.tags.get(LAST_STEP, 0)) if found else 0

    def log(self, metrics: Mapping[str, float], *, step: int, axis: str = STEP) -> None:
        self._log(metrics, step=step)
        if axis == STEP:
            self.client.set_tag(self.id, LAST_STEP, step)

    def summary(self, figures: Mapping[str, float | str]) -> None:
        texts = {name: value for name, value in figures.items() if isinstance(value, str)}
        for name, text in texts.items():
            self.client.set_tag(self.id, _name(name), text[:LONGEST])
        self._log({n: v for n, v in figures.items() if not isinstance(v, str)}, step=0)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            # What `log_table` writes and tags; that would add to a table which is there.
            data = [list(row.values()) for row in rows]
            self.client.log_dict(self.id, {"columns": list(rows[0]), "data": data}, "samples.json")
            shown = [{"path": "samples.json", "type": "table"}]
            self.client.set_tag(self.id, "mlflow.loggedArtifacts", json.dumps(shown))

    def pages(self, pages: Mapping[str, str]) -> None:
        for number, page in enumerate(pages.values()):
            self.client.log_text(self.id, page, f"trees/{number}.html")

    def lineage(self, output: Artifact, inputs: Sequence[Artifact]) -> None:
        told = {"made": output.reference, "from": [one.reference for one in inputs]}
        self.client.log_dict(self.id, told, "lineage.json")
        for name, text in output.files.items():
            self.client.log_text(self.id, text, f"{output.kind}/{name}")

    def close(self, *, failed: bool) -> None:
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")

    def _log(self, metrics: Mapping[str, float], *, step: int) -> None:
        now = int(time.time() * 1000)
        points = [Metric(_name(name), value, now, step) for name, value in metrics.items()]
        for some in _batches(points, METRICS_AT_ONCE):
            self.client.log_batch(self.id, metrics=some)


class MlflowLogger:
    """The logger `mlflow`; `folder` takes the database and what runs show.

    Names that MLflow refuses (it allows letters, digits and `_-. /:`) have `_` for the rest.
    """

    def __init__(self, config: MlflowConfig, folder: Path) -> None:
        address = config.address or os.environ.get("MLFLOW_TRACKING_URI")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".mlflow.lock"):  # rows side by side would both make the tables
            self.client = MlflowClient(address or f"sqlite:///{folder / 'mlflow.db'}")
            self.experiment = self._experiment(
                config.experiment, None if address else (folder / "artifacts").as_uri()
            )

    def start(self, run: RunInfo) -> MlflowRun:
        return MlflowRun(self.client, self.experiment, run)

    def _experiment(self, name: str, place: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return self.client.create_experiment(name, artifact_location=place)
        if found.lifecycle_stage != "active":
            raise MlflowException(f"the experiment {name!r} was deleted: restore it, or rename")
        return found.experiment_id


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{_name(name)}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{_name(name)}", text


def _batches(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))


def _name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in name)
