"""Stacks of error classes, by hand."""

import json

import pytest

from marco.errors import UserError
from marco.evaluation.statistics import wilson
from marco.reporting.figures.error_classes import class_grid, error_class_stacks, read_stacks
from marco.reporting.results import collect
from marco.reporting.table import RowSpec

from .drawn import overlapping, said

NAMES = {"c": "content_repetition", "i": "instruction_failure", "o": "over_reflection", ".": None}


@pytest.fixture
def erring(score):
    """A scores folder with a sample a letter of `classes`, some of them cut off."""

    def write(row, classes, seed=0, *, cut=0, task="math", tries=1, **changes):
        folder = score(row, seed, correct=1, n=len(classes), task=task)
        lines = [
            {
                "task": task,
                "id": i // tries,
                "error_class": NAMES[letter],
                "finish": "length" if i < cut else "stop",
            }
            | changes
            for i, letter in enumerate(classes)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "samples.jsonl").write_text(text)
        return folder

    return write


SFT = [RowSpec("sft", "SFT")]


def test_a_sample_counts_once_for_the_class_that_stands_for_it(erring):
    [stack], confidence = read_stacks(SFT, collect([erring("sft", "cccio.....", cut=2)]))
    assert (stack.n, stack.seeds, confidence) == (10, 1, 0.95)
    assert stack.shares == (0.3, 0.1, 0.1)
    total = stack.any_class
    assert (total.value, total.low, total.high) == (0.5, *wilson(5, 10, confidence=0.95))
    assert (total.kind, stack.cut) == ("wilson", 0.2)


def test_the_stacks_stand_in_a_grid_too(erring):
    stacks, confidence = read_stacks(SFT, collect([erring("sft", "cccio.....", cut=2)]))
    grid = class_grid(stacks, confidence=confidence)
    assert grid.heads[3:6] == tuple(f"{NAMES[letter]}, %" for letter in "cio")
    [[title, task, size, *shares, total, cut]] = grid.rows
    assert (title, task, size) == ("SFT", "math", "10 × 1")
    assert shares == pytest.approx([30, 10, 10]) and cut == 20
    assert total.value == 50 and total.low == 100 * wilson(5, 10, confidence=0.95)[0]


def test_seeds_and_tries_are_means(erring):
    folders = [erring("sft", "c..." * 2, tries=4), erring("sft", "cci." * 2, seed=1, tries=4)]
    [stack], _ = read_stacks(SFT, collect(folders))
    assert stack.shares == pytest.approx((0.375, 0.125, 0)) and stack.seeds == 2
    assert (stack.any_class.value, stack.any_class.kind) == (0.5, "t")
    assert stack.n == 2


def test_tries_of_a_problem_have_an_interval_over_problems(erring):
    [stack], _ = read_stacks(SFT, collect([erring("sft", "cc..c...", tries=4)]))
    assert stack.any_class.kind == "bootstrap" and stack.n == 2


def test_what_was_cut_off_is_not_told_where_it_is_not_known(erring):
    [stack], _ = read_stacks(SFT, collect([erring("sft", "c.", finish=None)]))
    assert stack.cut is None
    figure = error_class_stacks("t", SFT, [stack], confidence=0.95)
    assert "cut off" not in said(figure)


def test_bars_are_the_shares_end_to_end_with_hatches(erring):
    rows = [*SFT, RowSpec("dpo", "+ DPO")]
    stacks, confidence = read_stacks(rows, collect([erring("sft", "cccio.....", cut=2)]))
    figure = error_class_stacks("step_by_step", rows, stacks, confidence=confidence)
    [axes] = figure.axes
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [pytest.approx(pair) for pair in ((0, 30), (30, 10), (40, 10))]
    assert len({bar.get_hatch() for bar in axes.patches}) == 3
    told = said(figure)
    assert "step_by_step: error classes of each row" in told and "samples, %" in told
    assert "math (n = 10, 1 seed)" in told and "no samples" in told
    assert {"30", "50.0", "content repetition", "over reflection"} <= set(told.split("\n"))
    assert "cut off, of a class or not" in told and "(Wilson, one seed)" in told
    [cut] = [line for line in axes.lines if line.get_marker() == "v"]
    assert list(cut.get_xdata()) == [20]
    assert axes.get_xlim() == (0, 80)  # Wilson's interval of 5 of 10 ends at 76.3
    assert not overlapping(figure)


def test_a_row_without_errors_is_an_empty_stack(erring):
    stacks, _ = read_stacks(SFT, collect([erring("sft", "....")]))
    figure = error_class_stacks("t", SFT, stacks, confidence=0.95)
    assert "0.0" in said(figure).split("\n") and not overlapping(figure)


@pytest.mark.parametrize("count", [1, 20])
def test_long_titles_and_many_rows_stay_clear_of_each_other(erring, count):
    title = "Qwen2.5-1.5B-Instruct, chains of the longest bucket, conservative DPO, β = 0.05, row "
    rows = [RowSpec(f"r{i}", f"{title}{i}") for i in range(count)]
    tasks = ("gsm8k", "math", "aime", "planning")
    folders = [erring(row.recipe, "cciioo....", cut=3, task=task) for row in rows for task in tasks]
    stacks, confidence = read_stacks(rows, collect(folders))
    figure = error_class_stacks("error_classes", rows, stacks, confidence=confidence)
    assert len(figure.axes) == 4 and not overlapping(figure)


def test_what_is_not_there_is_told(score, erring):
    with pytest.raises(UserError, match="no row has a result with a samples.jsonl"):
        read_stacks(SFT, collect([score("sft", correct=8)]))
    with pytest.raises(UserError, match="unknown error class 'boredom': evaluate again"):
        read_stacks(SFT, collect([erring("sft", "c", seed=1, error_class="boredom")]))
    with pytest.raises(UserError, match="t: there is no row with error classes"):
        error_class_stacks("t", SFT, [], confidence=0.95)
