"""Logs a finished row with W&B: its training as it went, its scores as the summary."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marco.reporting.config import LoggerConfig
from marco.reporting.wandb_log import Run


def log_row(
    config: Mapping[str, Any], labels: Mapping[str, Any], *, student: Path | None, out: Path
) -> None:
    """One run per row, read from disk, so that a row whose student was reused is complete too."""
    with Run(
        LoggerConfig(**config["logger"]),
        folder=out,
        experiment=labels["experiment"],
        row=config["row"],
        seed=config["seed"],
        settings=labels["settings"],
    ) as run:
        log = student / "metrics.csv" if student is not None else None
        if log is not None and log.is_file():
            with log.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    values = {k: float(v) for k, v in row.items() if k != "step" and v}
                    run.log(values, step=int(row["step"]))
        run.summary(json.loads((out / "results.json").read_text(encoding="utf-8"))["tasks"])
