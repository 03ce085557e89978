"""The no-answer bars, and the table's own picture, which shares them: what they show, legibly."""

import pytest

from marco.reporting.figures import style
from marco.reporting.figures.no_answer import no_answer_bars
from marco.reporting.picture import _draw as draw_picture
from marco.reporting.table import RowSpec, make_table

from .drawn import overlapping, said

LONG = "Qwen2.5-1.5B-Instruct, chains of the longest bucket, conservative DPO, β = 0.05, row "


def table(rows, folders, *, paper="step_by_step", **status):
    return make_table(
        name="step_by_step",
        rows=rows,
        folders=folders,
        paper=paper,
        paper_column="gsm8k",
        status=status,
    )


def test_bars_numbers_statuses_and_the_papers_values(score):
    rows = [RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO"), RowSpec("joint", "+ joint")]
    folders = [score("sft", correct=80, silent=2), score("dpo", correct=3, silent=37)]
    figure = no_answer_bars(table(rows, folders, joint="failed"))
    told = said(figure)
    assert "step_by_step: no-answer ratio of each row (lower is better)" in told
    assert "arithmetic (n = 100, 1 seed)" in told and "no answer, %" in told
    assert {"2.0", "37.0", "failed"} <= set(told.split("\n"))
    assert "paper: Llama-3.1-8B-Instruct, GSM8K" in told
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([2, 37])
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [list(d.get_xdata()) for d in diamonds] == [[0.23], [6.37], [0.38]]
    assert axes.get_xlim() == (0, 50)  # Wilson's interval of 37 of 100 ends at 46.8
    assert not overlapping(figure)


def test_the_papers_values_stand_beside_their_own_tasks_only(score):
    tasks = ("multi_if en", "multi_if zh", "multi_if")
    folders = [score("sft", correct=80, silent=2, task=task) for task in tasks]
    figure = no_answer_bars(table([RowSpec("sft", "SFT")], folders))
    beside = [
        [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "D"]
        for axes in figure.axes
    ]
    assert beside == [[[1.69]], [[0.77]], []]
    assert "paper: Llama-3.1-8B-Instruct, IF En, IF Zh" in said(figure)
    assert not overlapping(figure)


def test_only_what_is_drawn_is_explained(score):
    alone = table([RowSpec("alpha_1.0", "α = 1")], [score("alpha_1.0", correct=80)], paper="alpha")
    assert "paper: " in said(draw_picture(alone)) and "paper" not in said(no_answer_bars(alone))
    rows = [RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO")]
    # Accuracy differs beyond noise, and DPO's is best; the no-answer ratios are alike.
    folders = [score("sft", correct=20, keeps=True), score("dpo", correct=90, keeps=True)]
    both = table(rows, folders, paper=None)
    told = said(no_answer_bars(both))
    assert "† difference to the row above within noise" in told
    assert "bold" not in told and "‡" not in told and "paper" not in told
    assert "bold: better than every other row of its column" in said(draw_picture(both))


@pytest.mark.parametrize("count", [1, 20])
def test_long_titles_and_many_rows_stay_clear_of_each_other(score, count):
    rows = [RowSpec(f"r{i}", f"{LONG}{i}") for i in range(count)]
    folders = [
        score(row.recipe, seed, correct=50 + seed, silent=i, task=task)
        for i, row in enumerate(rows)
        for seed in (0, 1)
        for task in ("gsm8k", "math")
    ]
    for figure in (no_answer_bars(made := table(rows, folders)), draw_picture(made)):
        assert not overlapping(figure)
        told = said(figure).replace("\xa0", " ")
        assert all(f"β = 0.05, row {i}" in told for i in range(count))


def test_five_tasks_are_three_abreast_and_tell_their_own_n(score):
    tasks = ["gsm8k", "math", "aime", "planning", "multi_if"]
    folders = [score("sft", correct=1, n=10 + i, task=task) for i, task in enumerate(tasks)]
    figure = no_answer_bars(table([RowSpec("sft", "SFT")], folders))
    assert len(figure.axes) == 5
    assert all(f"{task} (n = {10 + i}, 1 seed)" in said(figure) for i, task in enumerate(tasks))
    assert not overlapping(figure)
    # The paper's values stand beside their own tasks only.
    shown = [any(line.get_marker() == "D" for line in axes.lines) for axes in figure.axes]
    assert shown == [True, True, True, True, False]


@pytest.mark.parametrize("rows", [[], [RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO")]])
def test_a_table_without_a_result_is_drawn(rows):
    empty = table(rows, [], paper=None, dpo="running")
    for figure in (no_answer_bars(empty), draw_picture(empty)):
        told = said(figure)
        assert ("pending" in told and "running" in told) == bool(rows)
        assert style.to_bytes(figure, "png", dpi=40).startswith(b"\x89PNG")


def test_a_long_status_does_not_run_into_the_next_panel(score):
    rows = [RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO"), RowSpec("joint", "+ joint")]
    status = "failed (seed 0, 1, 2): the loss is not finite at step 3 of 90; lower the rate"
    folders = [score("sft", correct=80, task=task) for task in ("gsm8k", "math", "aime")]
    folders.append(score("joint", correct=80, task="gsm8k"))
    made = table(rows, folders, dpo=status, joint=status)
    for figure in (no_answer_bars(made), draw_picture(made)):
        told = said(figure)
        assert "failed (seed 0, 1, 2): the …" in told
        assert not overlapping(figure)
    assert f"n = 100, 1 seed, {status}" in told.replace("\xa0", " ")
