"""Test@N curves by hand."""

import json

import pytest

from marco.errors import UserError
from marco.evaluation.statistics import wilson
from marco.reporting.figures.test_at import read_curves, tries_curves, tries_grid
from marco.reporting.paper import load_paper
from marco.reporting.results import collect
from marco.reporting.table import RowSpec

from .drawn import curves as curves_of
from .drawn import overlapping, said
from .tries import write_samples

TRIES = {"p": ("nyny", (10, 30, 40, 80)), "q": ("nnnn", (10, 20, 30, 40))}


@pytest.fixture
def tried(score):
    """A scores folder with the given tries; `method` is that of the decoding."""

    def write(row, problems, seed=0, method="sample", task="math", **changes):
        folder = score(row, seed, correct=1, n=len(problems), task=task)
        write_samples(folder, problems, **{"task": task} | changes)
        results = json.loads((folder / "results.json").read_text())
        results["config"] = {"decoding": {"method": method}}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write


def curve_of(folders, row="best"):
    [curve], confidence = read_curves([RowSpec(row, "the best")], collect(folders))
    assert confidence == 0.95
    return curve


def test_samples_by_the_unbiased_estimator(tried):
    curve = curve_of([tried("best", TRIES)])
    assert (curve.n, curve.seeds, curve.tries) == (2, 1, (1, 2, 4))
    # Problem p: 2 of 4 right: 1/2, 1 - C(2,2)/C(4,2) = 5/6, 1; q never.
    assert [share.value for share in curve.shares] == pytest.approx([0.25, 5 / 12, 0.5])
    # A mean try of p takes 20 tokens, of q 10.
    assert curve.tokens == pytest.approx((15, 30, 60))
    assert [share.kind for share in curve.shares] == ["bootstrap", "bootstrap", "wilson"]
    assert (curve.shares[2].low, curve.shares[2].high) == wilson(1, 2, confidence=0.95)


def test_the_curves_stand_in_a_grid_too(tried):
    curves, confidence = read_curves([RowSpec("best", "the best")], collect([tried("best", TRIES)]))
    rows = tries_grid(curves, confidence=confidence).rows
    assert [row[:4] for row in rows] == [("the best", "math", "2 × 1", n) for n in (1, 2, 4)]
    assert [row[4].value for row in rows] == pytest.approx([25, 500 / 12, 50])
    assert [row[5] for row in rows] == pytest.approx([15, 30, 60])


def test_tries_of_a_tree_are_taken_in_their_order(tried):
    curve = curve_of([tried("best", TRIES, method="mcts")])
    assert [share.value for share in curve.shares] == [0, 0.5, 0.5]
    assert curve.tokens == (10, 25, 60)


def test_a_greedy_row_is_one_point(tried):
    curve = curve_of([tried("best", {"p": ("y", (10,)), "q": ("n", (20,)), "r": ("y", (30,))})])
    assert (curve.tries, curve.tokens) == ((1,), (20,))
    assert curve.shares[0].kind == "wilson"
    assert (curve.shares[0].low, curve.shares[0].high) == wilson(2, 3, confidence=0.95)


def test_seeds_are_meant_over_the_numbers_of_tries_they_share(tried):
    short = {id: (marks[:2], spent[:2]) for id, (marks, spent) in TRIES.items()}
    curve = curve_of([tried("best", TRIES), tried("best", short, seed=1)])
    # The second seed: p 1 of 2 right, q none: 0.25 and 0.5; tokens of a try 15 and 10.
    assert curve.seeds == 2 and curve.tries == (1, 2)
    assert [s.value for s in curve.shares] == pytest.approx([0.25, (5 / 12 + 0.5) / 2])
    assert curve.shares[1].kind == "t"
    assert curve.tokens == pytest.approx(((15 + 12.5) / 2, (30 + 25) / 2))


def test_problems_with_more_tries_than_others_end_with_the_least(tried):
    uneven = {"p": ("nyn", (10, 20, 30)), "q": ("nnnnn", (1, 2, 3, 4, 5))}
    assert curve_of([tried("best", uneven)]).tries == (1, 2, 3)


def test_later_turns_do_not_count(tried):
    with pytest.raises(UserError, match="no problem of math has a first turn"):
        curve_of([tried("best", TRIES, turn=2)])


def test_curves_are_drawn_over_tries_and_over_tokens(tried):
    rows = [RowSpec("best", "best"), RowSpec("tree", "best + MCTS"), RowSpec("none", "none")]
    folders = [tried("best", TRIES), tried("tree", TRIES, method="mcts")]
    curves, confidence = read_curves(rows, collect(folders))
    printed = {"tries": {"best": {"math": {1: 51.0, 4: 70.2}}}}
    paper = load_paper("test_at_n", column="math").model_copy(update=printed)
    beside = {"paper": paper, "paper_column": "math"}
    figure = tries_curves("test_at_n", curves, confidence=confidence, **beside)
    told = said(figure)
    assert "test_at_n: Test@N, the share of problems that N tries solve" in told
    assert "math (n = 2): Test@N over tries" in told and "over tokens spent" in told
    assert "problems solved, %" in told and "best + MCTS (1 seed)" in told
    assert "open markers: the paper's value of the row (Llama-3.1-8B-Instruct, MATH)" in told
    left, right = figure.axes
    by_tokens = [list(line.get_xdata()) for line in curves_of(right)]
    assert by_tokens == [pytest.approx([15, 30, 60]), pytest.approx([10, 25, 60])]
    by_tries = [list(line.get_xdata()) for line in curves_of(left)]
    assert by_tries == [[1, 2, 4], [1, 4], [1, 2, 4]]
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "2", "4"]
    assert len({line.get_marker() for line in curves_of(right)}) == 2
    end = 100 * wilson(1, 2, confidence=0.95)[1]
    assert end < left.get_ylim()[1] <= 103
    assert not overlapping(figure)


def test_the_grid_has_the_papers_tries_beside_ours(tried):
    rows = [RowSpec("best", "best"), RowSpec("tree", "best + MCTS")]
    folders = [tried("best", TRIES), tried("tree", TRIES, method="mcts")]
    curves, confidence = read_curves(rows, collect(folders))
    printed = {"tries": {"best": {"math": {1: 51.0, 8: 70.2}}}}
    paper = load_paper("test_at_n", column="math").model_copy(update=printed)
    grid = tries_grid(curves, confidence=confidence, paper=paper, paper_column="math")
    own, other = grid.rows[:4], grid.rows[4:]
    assert [(row[3], row[-1]) for row in own] == [(1, 51.0), (2, None), (4, None), (8, 70.2)]
    assert own[-1][4:6] == (None, None) and all(row[-1] is None for row in other)
    lines = grid.markdown().splitlines()
    assert "| best | math | 2 × 1 | 8 | – | – | 70.2 |" in lines
    assert "- Paper: Llama-3.1-8B-Instruct, MATH, as printed (arXiv 2503.01461" in lines[-1]
    nothing = paper.model_copy(update={"tries": {}})
    without = tries_grid(curves, confidence=confidence, paper=nothing, paper_column="math")
    assert without.heads[-1] == "tokens a problem" and len(without.rows[0]) == 6


def test_a_single_try_has_its_tokens_on_the_axis(tried):
    curves, confidence = read_curves(
        [RowSpec("best", "best")], collect([tried("best", {"p": ("y", (1011,))})])
    )
    _, right = tries_curves("t", curves, confidence=confidence).axes
    assert [label.get_text() for label in right.get_xticklabels()] == ["1,011"]


def test_unknown_tokens_leave_the_tries(tried):
    curves, confidence = read_curves(
        [RowSpec("best", "best")], collect([tried("best", TRIES, spent=None)])
    )
    assert curves[0].tokens == (None, None, None)
    figure = tries_curves("t", curves, confidence=confidence)
    assert len(figure.axes) == 1 and "tokens" not in said(figure)


@pytest.mark.parametrize("count", [1, 20])
def test_long_titles_stay_clear_of_each_other(tried, count):
    title = "Qwen2.5-1.5B-Instruct, chains of the longest bucket, conservative DPO, β = 0.05, row "
    rows = [RowSpec(f"r{i}", f"{title}{i}") for i in range(count)]
    folders = [tried(row.recipe, TRIES, task=task) for row in rows for task in ("math", "gsm8k")]
    curves, confidence = read_curves(rows, collect(folders))
    figure = tries_curves("test_at_n", curves, confidence=confidence)
    assert len(figure.axes) == 4 and not overlapping(figure)


def test_what_is_not_there_is_told(score, tried):
    rows = [RowSpec("sft", "SFT")]
    with pytest.raises(UserError, match="no row has a result with a samples.jsonl"):
        read_curves(rows, collect([score("sft", correct=80)]))
    folder = tried("best", TRIES)
    with pytest.raises(UserError, match="no row has a result"):
        read_curves(rows, collect([folder]))
    (folder / "samples.jsonl").write_text('{"task": "math", "id": "p", "turn": 1, "try": 0}\n')
    with pytest.raises(UserError, match="samples.jsonl, line 1: no 'verdict': evaluate again"):
        curve_of([folder])
    with pytest.raises(UserError, match="t: there is no row with several tries"):
        tries_curves("t", [], confidence=0.95)
