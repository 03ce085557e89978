"""Two ways of decoding, by tries and by tokens, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.reporting.__main__ import main
from marco.reporting.test_at import compare_tries, text

from .tries import Tries, write_samples

SAMPLES = {"p": ("ny", (10, 20)), "q": ("nn", (10, 20)), "r": ("yn", (10, 20))}
TREE = {"p": ("nn", (20, 30)), "q": ("ny", (20, 30)), "r": ("yy", (20, 30))}


def folder(path: Path, problems: Tries, **changes: Any) -> Path:
    path.mkdir()
    write_samples(path, problems, **changes)
    shares = {"accuracy": 0, "accuracy_interval": [0, 1]}
    shares |= {"no_answer": 0, "no_answer_interval": [0, 1]}
    results = {"schema": 2, "student": "s", "seed": 0}
    results["tasks"] = {"math": {"n": 3, "confidence": 0.95, **shares}}
    (path / "results.json").write_text(json.dumps(results))
    return path


def test_by_tries_and_by_tokens_by_hand(tmp_path: Path) -> None:
    told = compare_tries(folder(tmp_path / "a", SAMPLES), folder(tmp_path / "b", TREE))
    found = told["math"]
    assert (found["n"], found["tries"]) == (3, 2)
    rows = found["at_equal_tries"]
    assert [(r["tries"], r["a"], r["b"], r["a_tokens"], r["b_tokens"]) for r in rows] == [
        (1, 1 / 3, 1 / 3, 10, 20),
        (2, 2 / 3, 2 / 3, 20, 30),
    ]
    assert [r["p"] for r in rows] == [1, 1]  # one problem each way
    rows = found["at_equal_tokens"]
    assert [(r["tokens"], r["a"], r["b"], r["a_tokens"], r["b_tokens"]) for r in rows] == [
        (10, 1 / 3, 0, 10, 0),
        (20, 2 / 3, 1 / 3, 20, 20),
        (30, 2 / 3, 2 / 3, 20, 30),
    ]
    assert json.loads(json.dumps(told)) == told
    assert "math, 3 problems, 2 tries" in text(told) and "66.7% [" in text(told)


def test_what_cannot_be_compared_is_told(tmp_path: Path, capsys: Any) -> None:
    a = folder(tmp_path / "a", SAMPLES)
    others = {
        "1 problems are of one side only, first 'r'": {k: SAMPLES[k] for k in "pq"},
        "1 to 2 tries at a problem": {k: (marks[:1], s[:1]) for k, (marks, s) in TREE.items()},
    }
    for i, (told, problems) in enumerate(others.items()):
        with pytest.raises(UserError, match=told):
            compare_tries(a, folder(tmp_path / f"b{i}", problems))
    with pytest.raises(UserError, match="6 problems are of one side only"):
        compare_tries(a, folder(tmp_path / "p", TREE, prompt="Another?"))
    with pytest.raises(UserError, match="tokens spent are not known"):
        compare_tries(a, folder(tmp_path / "c", TREE, spent=None))
    with pytest.raises(UserError, match="share no task"):
        compare_tries(a, folder(tmp_path / "d", TREE, task="u"))
    assert main(["test_at", str(a), str(tmp_path / "nowhere")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert main(["test_at", str(a), str(a)]) == 0
    assert "p" in capsys.readouterr().out
