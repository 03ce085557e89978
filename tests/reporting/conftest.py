import json
from pathlib import Path

import pytest

from marco.evaluation.metrics import summarise
from marco.evaluation.official import official_scores
from marco.tasks.instructions.figures import by_turn_and_language

BOOTSTRAP = {"resamples": 200, "seed": 0}


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
        max_tokens=None,
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
                "error_classes": [],
            }
            for i, v in enumerate(verdicts)
            for attempt in range(tries)
        ]
        figures = summarise(
            samples, confidence=confidence, test_at=[1], majority=majority, **BOOTSTRAP
        )
        figures |= {"seconds": 1.5, "max_tokens": max_tokens}
        folder = tmp_path / "scores" / f"{row}-{seed}-{task}"
        return write_folder(folder, row, seed, {task: figures}, samples if keeps else None)

    return write


@pytest.fixture
def talk_score(tmp_path):
    """Writes a scores folder of multi_if: a mark a conversation of one turn and instruction."""

    def write(row, seed=0, *, english, chinese) -> Path:
        samples = [
            {
                "task": "multi_if",
                "id": f"{language}{i}",
                "turn": 1,
                "try": 0,
                "group": language,
                "verdict": "correct" if mark == "+" else "wrong",
                "details": {"strict": [mark == "+"], "loose": [mark == "+"]},
                "prompt": f"Say {i}.",
            }
            for language, marks in (("English", english), ("Chinese", chinese))
            for i, mark in enumerate(marks)
        ]
        shared = {"confidence": 0.95, **BOOTSTRAP}
        own = official_scores("multi_if", by_turn_and_language(samples), samples, **shared)
        figures = summarise(samples, test_at=[], majority=False, **shared) | own.figures
        folder = tmp_path / "scores" / f"{row}-{seed}-multi_if"
        return write_folder(folder, row, seed, {"multi_if": figures} | own.entries, samples)

    return write


def write_folder(folder, row, seed, tasks, samples) -> Path:
    folder.mkdir(parents=True)
    if samples is not None:
        lines = [json.dumps(sample) + "\n" for sample in samples]
        (folder / "samples.jsonl").write_text("".join(lines))
    results = {
        "schema": 2,
        "student": "tiny",
        "row": row,
        "title": None,
        "seed": seed,
        "tasks": tasks,
        "config": {"anything": 1},
        "keys": {"student": "abc"},
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder
