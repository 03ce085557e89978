"""Samples of problems that were tried several times, told in marks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# By problem: for each try y where it is right, and the tokens spent until it was there.
Tries = Mapping[str, tuple[str, Sequence[int]]]


def write_samples(folder: Path, problems: Tries, **changes: Any) -> None:
    """Write `samples.jsonl`, with `changes` in each row."""
    rows = [
        {
            "task": "math",
            "id": id,
            "prompt": f"What is {id}?",
            "turn": 1,
            "try": i,
            "verdict": "correct" if mark == "y" else "wrong",
            "spent": tokens,
        }
        | changes
        for id, (marks, spent) in problems.items()
        for i, (mark, tokens) in enumerate(zip(marks, spent, strict=True))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
