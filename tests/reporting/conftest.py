import json
from pathlib import Path

import pytest

from marco.evaluation.metrics import summarise


@pytest.fixture
def score(tmp_path):
    """Writes a scores folder as the evaluation does: `correct` and `silent` of `n` samples."""

    def write(row, seed=0, *, correct, silent=0, n=100, task="arithmetic", confidence=0.95) -> Path:
        verdicts = ["correct"] * correct + ["no_answer"] * silent
        verdicts += ["wrong"] * (n - len(verdicts))
        samples = [
            {"id": str(i), "verdict": v, "tokens": 50, "finish": "stop"}
            for i, v in enumerate(verdicts)
        ]
        folder = tmp_path / "scores" / f"{row}-{seed}-{task}"
        folder.mkdir(parents=True)
        results = {
            "schema": 1,
            "student": "tiny",
            "row": row,
            "title": None,
            "seed": seed,
            "tasks": {task: summarise(samples, confidence=confidence) | {"seconds": 1.5}},
            "config": {"anything": 1},
            "keys": {"student": "abc"},
        }
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write
