import math

import pytest

from marco.errors import UserError
from marco.evaluation.statistics import difference_of_shares, welch, wilson
from marco.reporting.results import collect
from marco.reporting.rows import RowSpec, build_rows

SFT, DPO = RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO")


def rows_of(specs, folders, **status):
    return build_rows(specs, collect(folders), status=status)


def test_one_seed_has_wilsons_interval(score):
    (row,) = rows_of([SFT], [score("sft", correct=80, silent=5)])
    cell = row.cells["arithmetic"]
    assert (cell.seeds, cell.n, row.status) == ((0,), (100,), "finished")
    assert (cell.accuracy.value, cell.accuracy.kind) == (0.8, "wilson")
    assert (cell.accuracy.low, cell.accuracy.high) == wilson(80, 100, confidence=0.95)
    assert (cell.no_answer.low, cell.no_answer.high) == wilson(5, 100, confidence=0.95)


def test_a_label_tells_what_the_results_do_not(score):
    scored = [score("sft", correct=80)]
    rows = rows_of([SFT, DPO], scored, sft="stale: its config has changed")
    assert [row.label for row in rows] == ["SFT (stale)", "+ DPO"]
    [row] = rows_of([SFT], scored, sft="failed (seed 2): no room")
    assert row.label == "SFT (failed (seed 2))" and rows_of([SFT], scored)[0].label == "SFT"


def test_several_seeds_have_their_mean_and_a_t_interval_over_seeds(score):
    folders = [score("sft", seed, correct=k) for seed, k in enumerate([70, 60, 80])]
    cell = rows_of([SFT], folders)[0].cells["arithmetic"]
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (cell.seeds, cell.accuracy.per_seed) == ((0, 1, 2), (0.7, 0.6, 0.8))
    assert (cell.accuracy.value, cell.accuracy.kind) == (pytest.approx(0.7), "t")
    assert (cell.accuracy.low, cell.accuracy.high) == pytest.approx((0.7 - half, 0.7 + half))


def test_seeds_that_agree_do_not_make_a_share_certain(score):
    cell = rows_of([SFT], [score("sft", seed, correct=80) for seed in range(3)])[0].cells
    measure = cell["arithmetic"].no_answer
    assert (measure.kind, measure.low, measure.high) == ("wilson", *wilson(0, 100, confidence=0.95))


def test_a_t_interval_is_cut_to_what_a_share_can_be(score):
    cell = rows_of([SFT], [score("sft", 0, correct=99), score("sft", 1, correct=1)])[0].cells
    assert (cell["arithmetic"].accuracy.low, cell["arithmetic"].accuracy.high) == (0.0, 1.0)


def test_rows_of_one_seed_are_compared_as_two_proportions(score):
    rows = rows_of([SFT, DPO], [score("sft", correct=80), score("dpo", correct=75, silent=20)])
    cell = rows[1].cells["arithmetic"]
    found = cell.accuracy.difference
    expected = difference_of_shares(0.75, 100, 0.8, 100, confidence=0.95)
    assert (found.low, found.high, found.kind) == (*expected, "newcombe")
    assert found.value == pytest.approx(-0.05)
    assert found.within_noise
    assert not cell.no_answer.difference.within_noise
    assert rows[0].cells["arithmetic"].accuracy.difference is None


def test_rows_of_several_seeds_are_compared_by_welch(score):
    sft = [score("sft", seed, correct=k) for seed, k in enumerate([70, 60, 80])]
    dpo = [score("dpo", seed, correct=k) for seed, k in enumerate([30, 32])]
    cell = rows_of([SFT, DPO], sft + dpo)[1].cells["arithmetic"]
    found = cell.accuracy.difference
    expected = welch([0.3, 0.32], [0.7, 0.6, 0.8], confidence=0.95)
    assert (found.low, found.high, found.kind) == (*expected, "welch")
    # No answer was never missing: no spread over seeds, so the problems are what is left.
    assert cell.no_answer.difference.kind == "newcombe"


def test_rows_with_samples_are_compared_problem_by_problem(score):
    # 88 of 100 are the same 80 and eight more: unpaired proportions would see nothing.
    folders = [score("sft", correct=80, keeps=True), score("dpo", correct=88, keeps=True)]
    cell = rows_of([SFT, DPO], folders)[1].cells["arithmetic"]
    found = cell.accuracy.difference
    assert (found.kind, found.p) == ("paired", 2 / 2**8)
    assert found.value == pytest.approx(0.08) and 0 < found.low < 0.08 < found.high
    assert not found.within_noise
    unpaired = difference_of_shares(0.88, 100, 0.8, 100, confidence=0.95)
    assert unpaired[0] < 0
    # No answer was missing in either.
    silent = cell.no_answer.difference
    assert (silent.value, silent.p, silent.within_noise) == (0, 1, True)
    assert -silent.low == silent.high == pytest.approx(0.037, abs=1e-4)  # what 100 problems allow


def test_few_problems_are_within_noise_by_the_exact_test(score):
    folders = [score("sft", correct=80, keeps=True), score("dpo", correct=84, keeps=True)]
    found = rows_of([SFT, DPO], folders)[1].cells["arithmetic"].accuracy.difference
    assert found.low > 0 and found.p == 0.125
    assert found.within_noise


def test_rows_of_several_seeds_are_paired_against_both_noises(score):
    folders = [score("sft", seed, correct=k, keeps=True) for seed, k in enumerate([70, 60, 80])]
    folders += [score("dpo", seed, correct=k, keeps=True) for seed, k in enumerate([52, 56])]
    found = rows_of([SFT, DPO], folders)[1].cells["arithmetic"].accuracy.difference
    low, high = welch([0.52, 0.56], [0.7, 0.6, 0.8], confidence=0.95)
    assert (found.kind, found.value) == ("paired_seeds", pytest.approx(-0.16))
    assert found.low == pytest.approx(low) and found.high >= high
    assert found.within_noise and found.p < 0.05


def test_rows_on_other_problems_are_not_paired(score):
    folders = [score("sft", correct=80, keeps=True), score("dpo", correct=88, n=90, keeps=True)]
    found = rows_of([SFT, DPO], folders)[1].cells["arithmetic"].accuracy.difference
    assert (found.kind, found.p) == ("newcombe", None)


def test_several_tries_keep_the_interval_over_problems(score):
    (row,) = rows_of([SFT], [score("sft", correct=80, tries=4, keeps=True)])
    measure = row.cells["arithmetic"].accuracy
    assert (measure.kind, measure.n) == ("bootstrap", 100)
    assert (measure.low, measure.high) == pytest.approx(wilson(80, 100, confidence=0.95), abs=0.02)


def test_votes_are_compared_where_votes_are_counted(score):
    folders = [
        score("sft", correct=80, tries=3, majority=True, keeps=True),
        score("dpo", correct=88, keeps=True),
    ]
    rows = rows_of([SFT, DPO], folders)
    assert rows[0].cells["arithmetic"].accuracy.kind == "wilson"
    assert rows[1].cells["arithmetic"].accuracy.difference.p == 2 / 2**8


def test_samples_that_are_none_or_of_another_evaluation_are_refused(score):
    folder = score("sft", correct=80, keeps=True)
    path = folder / "samples.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:60]))
    with pytest.raises(UserError, match="holds 60 problems of arithmetic.* tell of 100"):
        rows_of([SFT], [folder])
    path.write_text("".join(lines[:2]) + '{"task": "arith')
    with pytest.raises(UserError, match="samples.jsonl, line 3: not a graded sample"):
        rows_of([SFT], [folder])


def test_one_seed_against_several_counts_the_problems_once(score):
    folders = [score("sft", 0, correct=80), score("sft", 1, correct=70), score("dpo", correct=74)]
    found = rows_of([SFT, DPO], folders)[1].cells["arithmetic"].accuracy.difference
    expected = difference_of_shares(0.74, 100, 0.75, 100, confidence=0.95)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.kind == "newcombe"


def test_a_missing_row_is_kept_and_the_row_below_it_is_compared_with_nothing(score):
    specs = [SFT, RowSpec("balanced", "+ balance"), DPO, RowSpec("joint", "+ joint")]
    rows = rows_of(specs, [score("sft", correct=80), score("dpo", correct=3)], joint="failed")
    assert [(row.recipe, row.status) for row in rows] == [
        ("sft", "finished"),
        ("balanced", "pending"),
        ("dpo", "finished"),
        ("joint", "failed"),
    ]
    assert rows[2].cells["arithmetic"].accuracy.difference is None


def test_a_row_listed_twice_and_mixed_confidences_are_refused(score):
    with pytest.raises(UserError, match="'sft' is listed twice"):
        rows_of([SFT, SFT], [])
    folders = [score("sft", correct=80), score("dpo", correct=3, confidence=0.9)]
    with pytest.raises(UserError, match="one confidence, got 0.9 in .*dpo-0.*, 0.95 in .*sft-0"):
        rows_of([SFT, DPO], folders)
