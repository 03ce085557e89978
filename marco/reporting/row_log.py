"""Logs a finished row with W&B: its training as it went, its scores as the summary."""

import csv
import json
from pathlib import Path

from marco.config import Config
from marco.reporting.wandb_log import Run


def log_row(
    config: Config, *, experiment: str, row: str, scores: Path, student: Path | None
) -> None:
    """One run per row and experiment, read from disk: a row that was reused is complete too.

    Its files lie in `outputs/wandb/<experiment>/`; a row whose folder is there is not logged again.
    """
    folder = config.outputs / "wandb" / experiment / scores.name
    if folder.exists():
        return
    with Run(
        config.logger,
        folder=folder,
        experiment=experiment,
        row=row,
        seed=config.seed,
        settings=config.model_dump(mode="json"),
    ) as run:
        log = student / "metrics.csv" if student is not None else None
        if log is not None and log.is_file():
            with log.open(encoding="utf-8", newline="") as file:
                for line in csv.DictReader(file):
                    values = {k: float(v) for k, v in line.items() if k != "step" and v}
                    run.log(values, step=int(line["step"]))
        run.summary(json.loads((scores / "results.json").read_text(encoding="utf-8"))["tasks"])
