import json
from pathlib import Path

import pytest

from marco.evaluation.metrics import summarise


@pytest.fixture
def score(tmp_path):
    """Writes a scores folder as the evaluation does: `correct` and `silent` of `n` problems.

    `tries` repeats each problem, `keeps` writes the samples too.
    """

    def write(
        row,
        seed=0,
        *,
        correct,
        silent=0,
        n=100,
        tries=1,
        keeps=False,
        majority=False,
        task="arithmetic",
        confidence=0.95,
    ) -> Path:
        verdicts = ["correct"] * correct + ["no_answer"] * silent
        verdicts += ["wrong"] * (n - len(verdicts))
        samples = [
            {
                "task": task,
                "id": str(i),
                "try": attempt,
                "verdict": v,
                "answer": {"correct": "4", "wrong": "7"}.get(v),
                "prompt": f"What is {i}?",
                "tokens": 50,
                "finish": "stop",
            }
            for i, v in enumerate(verdicts)
            for attempt in range(tries)
        ]
        folder = tmp_path / "scores" / f"{row}-{seed}-{task}"
        folder.mkdir(parents=True)
        if keeps:
            lines = [json.dumps(sample) + "\n" for sample in samples]
            (folder / "samples.jsonl").write_text("".join(lines))
        figures = summarise(
            samples,
            confidence=confidence,
            test_at=[1],
            majority=majority,
            resamples=200,
            seed=0,
        )
        results = {
            "schema": 2,
            "student": "tiny",
            "row": row,
            "title": None,
            "seed": seed,
            "tasks": {task: figures | {"seconds": 1.5}},
            "config": {"anything": 1},
            "keys": {"student": "abc"},
        }
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write
