"""Stages without models, for sweeps in tests: the server that rows are forked from imports this.

MARCO_TEST_POISON names seeds whose preference training ends badly, each in its own way.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from marco import pipeline, stages
from marco.evaluation.metrics import summarise
from marco.processes import end_with_script

WAYS = ("dies", "raises", "row dies")


def poison() -> dict[int, str]:
    seeds = os.environ.get("MARCO_TEST_POISON", "")
    return dict(zip(map(int, filter(None, seeds.split(","))), WAYS, strict=False))


def run(folder: Path) -> None:
    end_with_script()
    order = json.loads((folder / "config.yaml").read_text())
    config, outputs = order["config"], folder.parent.parent
    with (outputs / "begun").open("a") as file:
        file.write(f"{order['key']}\n")
    time.sleep(0.05)
    is_preference = bool(config.get("loss", {}).get("preference"))
    way = poison().get(config["seed"]) if order["kind"] == "student" and is_preference else None
    if way == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "raises":
        raise MemoryError(os.environ.get("MARCO_TEST_SAYS", "no room for the gradients"))
    if order["kind"] == "scores":
        verdicts = ["correct"] * (config["seed"] % 10) + ["wrong"] * 10
        samples = [
            {"id": i, "verdict": v, "tokens": 5, "finish": "stop"} for i, v in enumerate(verdicts)
        ]
        told: Any = {"confidence": 0.95, "test_at": [], "majority": False}
        figures = summarise(samples, resamples=10, seed=0, **told)
        results = {
            "schema": 1,
            "student": "tiny",
            "row": order["labels"]["row"],
            "title": order["labels"]["title"],
            "seed": config["seed"],
            "tasks": {"arithmetic": figures},
        }
        (folder / "results.json").write_text(json.dumps(results))


def check_contamination(config: Any) -> None:
    """Where a row's own process can be made to end, or to raise."""
    if os.environ.get("MARCO_TEST_RAISE"):
        raise ZeroDivisionError("of a row")
    if config.loss.preference and poison().get(config.seed) == "row dies":
        os.kill(os.getpid(), signal.SIGKILL)


stages.work.run = run
pipeline.check_contamination = check_contamination
