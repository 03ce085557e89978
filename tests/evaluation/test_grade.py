"""Responses of a file: joined, graded, written; what is wrong with the file is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.evaluation.grade import grade, read_replies
from marco.tasks.problem import Problem
from marco.tasks.registry import make_task

from ..test_config import checked

LAST = Problem(id="b", problem="And 2 + 2?", answer="4")
LABELS = {"student": "theirs", "row": "theirs", "title": "theirs"}
PROBLEMS = [
    Problem(id="a", problem="1 + 1?", answer="2"),
    Problem(id="b", problem="1 + 2?", answer="3", follow_ups=(LAST,)),
    Problem(id="7", problem="3 + 4?", answer="7"),
]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def graded(tmp_path: Path, *rows: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    config = checked(name="evaluate")
    grade(
        config.model_dump(mode="json"),
        LABELS,
        task=make_task(config.task),
        problems=PROBLEMS,
        responses=write(tmp_path / "responses.jsonl", *rows),
        out=tmp_path,
    )
    samples = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    return results, [json.loads(line) for line in samples]


def test_responses_are_joined_by_id_and_turn_and_graded(tmp_path, capsys) -> None:
    results, samples = graded(
        tmp_path,
        {"id": "b", "response": "The answer is 4", "turn": 2, "tokens": 5, "finish": "stop"},
        {"key": 7, "response": "", "finish_reason": "length"},
        {"id": "b", "response": "The answer is \ud800 4.", "turn": 1},
    )
    assert [(s["id"], s["turn"], s["verdict"], s["answer"], s["gold"]) for s in samples] == [
        ("b", 1, "wrong", "4", "3"),
        ("b", 2, "correct", "4", "4"),
        ("7", 1, "no_answer", None, "7"),
    ]
    assert samples[0]["response"] == "The answer is \ud800 4."
    assert (samples[1]["tokens"], samples[1]["finish"]) == (5, "stop")
    assert samples[2]["finish"] == "length" and samples[1]["prompt"] == "And 2 + 2?"
    task = results["tasks"]["arithmetic"]
    assert (task["n"], task["n_samples"]) == (2, 3) and task["accuracy"] == pytest.approx(1 / 3)
    assert results["row"] == "theirs" and task["seconds"] is None
    assert "1 of 3 problems have no response: not graded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"response": "2"}], "line 1: no `id`"),
        ([{"id": "c", "response": "2"}], "line 1: no problem has the id 'c'"),
        ([{"id": "a", "response": "2"}, {"id": "a"}], "line 2: no `response`"),
        ([{"id": "a", "response": 2}], "line 1: no `response`"),
        ([{"id": "a", "response": "2"}] * 2, "problem 'a' has several responses"),
        ([{"id": "a", "response": "2", "turn": 2}], "turn 2, but problem 'a' has 1"),
        ([{"id": "a", "response": "2", "turn": 0}], "`turn` is 0"),
        ([{"id": "a", "response": "2", "try": -1}], "`try` is -1"),
        ([{"id": "a", "response": "2", "finish": "eos"}], "`finish` is 'eos'"),
        ([{"id": "a", "response": "2", "tokens": 10**399}], "`tokens` is 1000.*…: expected"),
        ([{"id": "a", "response": "2", "tokens": True}], "`tokens` is true: expected a whole num"),
        ([{"id": None, "key": None, "response": "2"}], "line 1: no `id`"),
    ],
)
def test_what_is_wrong_with_responses_is_told_with_its_place(tmp_path, rows, told) -> None:
    with pytest.raises(UserError, match=told):
        read_replies(write(tmp_path / "r.jsonl", *rows), PROBLEMS)


def test_a_column_that_is_null_is_as_one_that_is_not_there(tmp_path) -> None:
    row = {"id": None, "key": "a", "response": "2", "finish": None, "finish_reason": "length"}
    [reply] = read_replies(write(tmp_path / "r.jsonl", row), PROBLEMS)["a"]
    assert (reply.text, reply.finish) == ("2", "length")


def test_what_was_cut_off_is_told_where_the_finish_is_unknown(tmp_path, capsys) -> None:
    open_thought = {"id": "a", "response": "<think>1 + 1 is"}
    results, samples = graded(tmp_path, open_thought, {"id": "7", "response": "The answer is 7"})
    assert [c["name"] for c in samples[0]["error_classes"]] == ["truncation"]
    figures = results["tasks"]["arithmetic"]
    assert figures["truncated"] is None and figures["error_classes"] == {}
    assert (figures["truncation"]["n"], figures["truncation"]["finish_unknown"]) == (1, 2)
    assert figures["truncation"]["share"] == 0.5
    assert "cut off at least 50.0% (2 of unknown finish)" in capsys.readouterr().out


def test_the_official_metric_is_told_beside_the_task_with_n_and_interval(tmp_path, capsys) -> None:
    config = checked("task=ifeval", name="evaluate")
    gold = '[{"id": "punctuation:no_comma", "kwargs": {}}]'
    problems = [Problem(id=str(i), problem=f"{i}?", answer=gold) for i in range(4)]
    said = ["Yes.", "Yes, no.", "So be it.", "Okay, the user wants a reply. Let me think."]
    rows = [{"id": i, "response": text} for i, text in enumerate(said)]
    responses = write(tmp_path / "responses.jsonl", *rows)
    sections, task = config.model_dump(mode="json"), make_task(config.task)
    grade(sections, LABELS, task=task, problems=problems, responses=responses, out=tmp_path)
    tasks = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tasks"]
    own, entry = tasks["ifeval"], tasks["ifeval official"]
    assert (own["accuracy"], own["official"], entry["accuracy"]) == (0.5, 0.5, 0.5)
    assert (own["no_answer"], entry["no_answer"], entry["n"]) == (0.25, 0.25, 4)
    assert own["prompt_strict_interval"] == pytest.approx(own["accuracy_interval"])
    assert entry["accuracy_interval"] == own["official_interval"] != [0.5, 0.5]
    assert "  ifeval official: n 4, accuracy 50.0% [" in capsys.readouterr().out


def test_several_tries_stay_apart(tmp_path) -> None:
    rows = [{"id": "a", "response": str(n), "try": n} for n in (2, 0, 1)]
    found = read_replies(write(tmp_path / "r.jsonl", *rows), PROBLEMS)
    assert [reply.text for reply in found["a"]] == ["0", "1", "2"]


def test_a_majority_votes_by_what_answers_mean_not_by_how_they_are_spelt(tmp_path) -> None:
    config = checked("task=math", "decoding=majority", name="evaluate")
    said = [r"\frac12", r"\frac{1}{2}", r"\dfrac{1}{2}", "3", "3"]
    rows = [{"id": "a", "try": i, "response": rf"\boxed{{{s}}}"} for i, s in enumerate(said)]
    grade(
        config.model_dump(mode="json"),
        LABELS,
        task=make_task(config.task),
        problems=[Problem(id="a", problem="1 / 2?", answer="1/2")],
        responses=write(tmp_path / "responses.jsonl", *rows),
        out=tmp_path,
    )
    figures = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tasks"]["math"]
    assert (figures["counted"], figures["accuracy"]) == ("votes", 1.0)
