"""The best of a column: told only where it holds against every other row, in each form."""

import csv
import io
import json

import pytest

from marco.reporting.results import collect
from marco.reporting.rows import RowSpec, build_rows
from marco.reporting.table import write_table

ROWS = [RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO"), RowSpec("joint", "+ joint")]


def best_of(folders, specs=ROWS):
    """(row, measure) of each cell that is the best of its column."""
    rows = build_rows(specs, collect(folders), status={})
    return [
        (row.recipe, task, name)
        for row in rows
        for task, cell in row.cells.items()
        for name in ("accuracy", "no_answer")
        if getattr(cell, name).is_best
    ]


def test_the_best_beats_every_row_not_only_the_one_above(score):
    # Of 100 problems the last row has all that the others have and more: 8 and 20 of them.
    folders = [score("sft", correct=80, keeps=True), score("dpo", correct=68, keeps=True)]
    folders.append(score("joint", correct=88, keeps=True))
    assert best_of(folders) == [("joint", "arithmetic", "accuracy")]


def test_the_order_of_rows_does_not_matter(score):
    folders = [
        score(row, correct=k, keeps=True) for row, k in (("sft", 88), ("dpo", 68), ("joint", 80))
    ]
    assert best_of(folders) == [("sft", "arithmetic", "accuracy")]


@pytest.mark.parametrize("first", [88, 86])
def test_nothing_is_best_where_one_row_is_near_or_the_same(score, first):
    folders = [score("sft", correct=first, keeps=True), score("dpo", correct=20, keeps=True)]
    folders.append(score("joint", correct=88, keeps=True))
    assert best_of(folders) == []


def test_the_least_no_answers_are_best(score):
    folders = [score("sft", correct=50, silent=40), score("dpo", correct=50, silent=5)]
    folders.append(score("joint", correct=50, silent=30))
    assert best_of(folders) == [("dpo", "arithmetic", "no_answer")]


def test_rows_that_cannot_be_paired_are_compared_as_two_samples(score):
    # 80 and 88 of 100 differ beyond noise by problem (above), and not as two samples.
    assert best_of([score("sft", correct=80), score("dpo", correct=88)]) == []
    assert best_of([score("joint", correct=30), score("sft", 1, correct=60)]) == [
        ("sft", "arithmetic", "accuracy")
    ]


def test_the_noise_of_seeds_counts(score):
    # All problems of DPO's are solved by SFT in each seed, but the seeds spread.
    sft = [score("sft", seed, correct=k, keeps=True) for seed, k in enumerate([70, 60, 80])]
    dpo = [score("dpo", seed, correct=k, keeps=True) for seed, k in enumerate([52, 56, 54])]
    assert best_of(sft + dpo) == []
    dpo = [score("dpo", seed, correct=k, keeps=True) for seed, k in enumerate([12, 16], 3)]
    assert best_of(sft + dpo) == [("sft", "arithmetic", "accuracy")]


def test_rows_of_another_group_are_not_compared(score, tmp_path):
    """Two students: the larger one's rows are better than all of the smaller one's."""
    correct = {"a_base": 80, "a_sft": 95, "b_base": 20, "b_sft": 40, "c_base": 60, "c_sft": 62}
    folders = [score(row, correct=k) for row, k in correct.items()]
    specs = [RowSpec(row, row, row[0]) for row in correct]
    assert best_of(folders, specs) == [(f"{x}_sft", "arithmetic", "accuracy") for x in "ab"]
    rows = build_rows(specs, collect(folders), status={})
    compared = [row.cells["arithmetic"].accuracy.difference is not None for row in rows]
    assert compared == [False, True] * 3
    told = {"name": "t", "rows": specs, "folders": folders, "paper": None, "paper_column": ""}
    text = write_table(**told, out=tmp_path, status={})
    base = next(line for line in text.splitlines() if line.startswith("| b_base |"))
    assert "‡" not in text and "†" not in base
    assert "- Rows are compared, and bold, within a, b, c each." in text


def test_a_row_that_waits_begins_no_group(score, tmp_path):
    specs = [
        RowSpec(row, row, group) for row, group in zip("abcd", ("x", "", "x", "y"), strict=True)
    ]
    folders = [score(row, correct=50) for row in "acd"]
    rows = build_rows(specs, collect(folders), status={})
    assert [row.is_first for row in rows if row.cells] == [True, False, True]
    told = {"name": "t", "rows": specs, "folders": folders, "paper": None, "paper_column": ""}
    lines = write_table(**told, out=tmp_path, status={}).splitlines()
    assert "‡" in next(line for line in lines if line.startswith("| c |"))
    assert "- ‡ Not compared: the row above has no result here (of its group)." in lines


def test_columns_are_judged_by_themselves_and_alone_nothing_is_best(score):
    folders = [score("sft", correct=80), score("dpo", correct=20)]
    folders += [score("dpo", correct=80, task="math"), score("joint", correct=20, task="math")]
    folders.append(score("joint", correct=99, task="aime"))
    assert best_of(folders) == [("sft", "arithmetic", "accuracy"), ("dpo", "math", "accuracy")]


def test_each_form_tells_the_best(score, tmp_path):
    folders = [score("sft", correct=80, keeps=True), score("joint", correct=95, keeps=True)]
    text = write_table(
        name="step_by_step",
        rows=ROWS,
        folders=folders,
        out=tmp_path / "out",
        paper="step_by_step",
        paper_column="gsm8k",
        status={"dpo": "failed"},
    )
    assert (
        "| + joint | 100 × 1 | **95.0 [88.8, 97.8] ‡** | 0.0 [0.0, 3.7] ‡ | 86.8 | 0.38 |" in text
    )
    assert "- Bold: better than every other row of its column that has a result" in text
    tex = (tmp_path / "out/table.tex").read_text()
    assert r" & \textbf{95.0 {[}88.8, 97.8{]} \textsuperscript{\ddag}} & " in tex
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out/table.csv").read_text())))
    assert [line["accuracy_best"] for line in lines] == ["False", "", "True"]
    assert [line["no_answer_best"] for line in lines] == ["False", "", "False"]
    told = json.loads((tmp_path / "out/table.json").read_text())
    assert (told["schema"], told["name"], told["confidence"]) == (2, "step_by_step", 0.95)
    assert told["tasks"] == ["arithmetic"] and told["paper"]["benchmarks"] == {
        "arithmetic": "GSM8K"
    }
    sft, dpo, joint = told["rows"]
    assert (dpo["status"], dpo["tasks"]) == ("failed", {})
    assert sft["paper"] == {"arithmetic": {"accuracy_percent": 87.4, "no_answer_percent": 0.23}}
    cell = joint["tasks"]["arithmetic"]
    assert (cell["seeds"], cell["n"]) == ([0], [100])
    accuracy = cell["accuracy"]
    assert (accuracy["value"], accuracy["kind"], accuracy["is_best"]) == (0.95, "wilson", True)
    assert 0.88 < accuracy["low"] < 0.95 < accuracy["high"] < 0.98
    assert not cell["no_answer"]["is_best"] and cell["tokens_mean"] == 50
    assert told["notes"] == [line[2:] for line in text.splitlines() if line.startswith("- ")]


def test_a_table_without_results_is_json_too(tmp_path):
    write_table(
        name="empty",
        rows=ROWS[:1],
        folders=[],
        out=tmp_path,
        paper=None,
        paper_column="gsm8k",
        status={},
    )
    told = json.loads((tmp_path / "table.json").read_text())
    assert told["rows"] == [
        {"row": "sft", "title": "SFT", "status": "pending", "tasks": {}, "paper": {}}
    ]
    assert (told["confidence"], told["paper"], told["notes"]) == (None, None, [])
