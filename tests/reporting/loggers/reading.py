"""What loggers have written, read back by their own readers."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marco.reporting.loggers.wandb_runs import kept

ROOT = Path(__file__).parents[3]


def run_row(outputs: Path, what: str, *overrides: str, text: str = "hm", env: Any = None) -> Any:
    """Log a row in a process of its own; what it printed."""
    return subprocess.run(
        command(outputs, what, *overrides),
        cwd=ROOT,
        env=os.environ | (env or {}),
        input=text,
        capture_output=True,
        text=True,
        timeout=300,
    )


def command(outputs: Path, what: str, *overrides: str) -> Sequence[str]:
    return [sys.executable, "-m", "tests.reporting.logged_rows", str(outputs), what, *overrides]


def wandb_files(outputs: Path, job_type: str) -> list[Path]:
    """The files that W&B has kept of the runs of a kind, in the order of writing."""
    return sorted(outputs.glob(f"wandb/*/{job_type}-*/wandb/*/*.wandb"))


def wandb_records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in kept(file).splitlines()]


def wandb_summary(file: Path) -> dict[str, Any]:
    return json.loads(kept(file, summary=True))


def histories(records: Sequence[Any], metric: str) -> list[Any]:
    """What a metric was at each point of its curve."""
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    return [item[metric] for item in items if metric in item]


def tensors(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, Any]]:
    """The (step, value) of each scalar, and each text, of TensorBoard's files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    scalars, texts = {}, {}
    for tag in events.Tags()["tensors"]:
        found = [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        if found[-1][1].dtype.kind == "O":
            texts[tag] = np.atleast_1d(found[-1][1]).tolist()
        else:
            scalars[tag] = [(step, float(value)) for step, value in found]
    return scalars, texts
