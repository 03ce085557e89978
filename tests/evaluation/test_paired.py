import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco.errors import UserError
from marco.evaluation.paired import Comparison, Run, compare, mismatch
from marco.evaluation.statistics import difference_of_shares, ratio_bootstrap, sign_flips, welch

NAMES = {"+": "correct", "-": "wrong", "?": "no_answer"}


def run(*problems, source="one", prompts=None, turns=False):
    """A run of problems, a letter a try (with `turns`: a turn): + correct, - wrong, ? no answer."""
    samples = [
        {"id": f"p{i}", "verdict": NAMES[mark], "prompt": (prompts or {}).get(f"p{i}")}
        | ({"turn": j + 1} if turns else {"try": j})
        for i, marks in enumerate(problems)
        for j, mark in enumerate(marks)
    ]
    return Run.of(samples, source=source)


def compared(a, b, verdict="correct", resamples=2000) -> Comparison:
    return compare(
        a,
        b,
        verdict=verdict,
        confidence=0.95,
        resamples=resamples,
        rng=np.random.default_rng(0),
    )


def test_one_sample_a_problem_by_hand():
    # 10 problems: both right on 3, only A on 5, only B on 1, none on 1.
    found = compared([run(*"++++++++--")], [run(*"+++-----+-")])
    assert (found.a, found.b, found.n) == (0.8, 0.4, 10)
    assert (found.more_a, found.more_b, found.test) == (5, 1, "mcnemar")
    assert (found.p, found.mid_p) == pytest.approx((14 / 64, 8 / 64))
    assert found.difference == pytest.approx(0.4)
    assert found.over_problems == found.interval and found.noise == "problems"
    assert not found.holds


def test_students_that_agree_on_every_problem_show_no_difference_but_may_differ_on_others():
    for marks in ("++--", "++++", "----", ("+-", "-+", "++", "--")):
        found = compared([run(*marks)], [run(*marks)])
        assert (found.difference, found.p, found.holds) == (0.0, 1.0, False)
        # z^2 / (n + z^2), n = 4: Wilson's bound of 0 problems of 4 that differ.
        assert found.interval == pytest.approx((-0.4899, 0.4899), abs=1e-4)


def test_a_difference_on_every_problem_has_a_width():
    found = compared([run(*"+" * 10)], [run(*"-" * 10)])
    assert found.interval == difference_of_shares(1, 10, 0, 10, confidence=0.95)
    assert found.p == 2 / 2**10 and found.holds


def test_few_problems_on_one_side_are_no_finding():
    # The bootstrap alone leaves zero out; four fair coins fall alike one time in eight.
    found = compared([run(*"++++" + "-" * 96)], [run(*"-" * 100)])
    assert found.over_problems[0] > 0 and found.p == 0.125
    assert not found.holds


def test_no_answers_are_compared_as_answers_are():
    found = compared([run(*"????????++")], [run(*"++++++++++")], verdict="no_answer")
    assert (found.a, found.b, found.more_a) == (0.8, 0.0, 8)
    assert found.holds and found.p == 2 / 2**8


def test_pairs_see_what_two_independent_rows_do_not():
    # 60 against 50 of 100, and the 50 are among the 60.
    found = compared([run(*"+" * 60 + "-" * 40)], [run(*"+" * 50 + "-" * 50)])
    low, high = difference_of_shares(0.6, 100, 0.5, 100, confidence=0.95)
    assert low < 0 < high and found.holds


def test_the_sides_may_be_exchanged():
    a, b = run(*"++++++-+-+-" * 9), run(*"+-+-+-+--+-" * 9)
    one, other = compared([a], [b]), compared([b], [a])
    assert (one.p, one.difference) == (other.p, -other.difference)
    assert (one.more_a, one.more_b) == (other.more_b, other.more_a)
    assert one.interval == pytest.approx([-bound for bound in reversed(other.interval)], abs=0.02)


def test_tries_and_turns_are_averaged_within_their_problem():
    found = compared([run("++++", "+---", "----")], [run("++--", "+---", "-+--")])
    assert (found.a, found.b, found.n) == (pytest.approx(5 / 12), pytest.approx(4 / 12), 3)
    assert (found.more_a, found.more_b, found.test) == (1, 1, "sign_flips")
    assert found.p == pytest.approx(sign_flips([2, 0, -1])[0])
    # Other numbers of tries compare by their means: 4/4 - 1/2, 1/4 - 1/2.
    found = compared([run("++++", "+---")], [run("+-", "+-")])
    assert found.difference == pytest.approx((1 / 2 - 1 / 4) / 2)
    assert found.p == pytest.approx(sign_flips([2, -1])[0])


def test_a_conversation_counts_by_its_turns():
    found = compared([run("+++", "+", turns=True)], [run("+--", "-", turns=True)])
    assert (found.a, found.b, found.n) == (1.0, 0.25, 2)
    assert (found.more_a, found.test) == (2, "sign_flips")


SEEDS = [run(*"+" * k + "-" * (100 - k)) for k in (70, 60, 80)]


def test_seeds_tell_their_own_noise_and_both_must_be_beyond_it():
    others = [run(*"+" * k + "-" * (100 - k)) for k in (52, 56)]
    found = compared(SEEDS, others)
    expected = welch([0.7, 0.6, 0.8], [0.52, 0.56], confidence=0.95)
    assert found.over_seeds == pytest.approx(expected)
    assert found.noise == "problems and seeds"
    # Against the problems' noise it holds; three seeds that vary so much do not carry it.
    assert found.p < 0.05 and found.over_problems[0] > 0 > found.over_seeds[0]
    assert not found.holds
    assert found.interval == (expected[0], max(expected[1], found.over_problems[1]))


def test_one_seed_is_taken_as_it_is_beside_several():
    fixed = run(*"+" * 10 + "-" * 90)
    found = compared(SEEDS, [fixed])
    half = 4.302653 * 0.1 / 3**0.5
    assert found.over_seeds == pytest.approx((0.6 - half, 0.6 + half))
    assert found.holds
    assert compared([fixed], SEEDS).over_seeds == pytest.approx((-0.6 - half, -0.6 + half))


def test_seeds_that_agree_leave_the_noise_of_the_problems():
    found = compared([SEEDS[0], SEEDS[0]], [SEEDS[1]])
    assert (found.over_seeds, found.noise) == (None, "problems")


def test_other_problems_are_refused_with_how_many_and_which():
    a, b = run(*"+-+", source="sft"), run(*"+", source="dpo")
    with pytest.raises(UserError, match="2 problems are only in one of sft and dpo.*'p1': eval"):
        compared([a], [b])
    texts = [run(*"++", prompts={"p0": "1 + 1?", "p1": text}) for text in ("2?", "3?")]
    assert "1 problems have another text" in str(mismatch(texts[:1], texts[1:]))
    assert mismatch(texts[:1], [run(*"++")]) is None  # where prompts are not told, ids must do
    assert "'p0'" in str(mismatch([run("++", turns=True)], [run("+")]))
    assert mismatch([run("+", turns=True)], [run("+")]) is None


def test_uneven_tries_are_refused():
    with pytest.raises(UserError, match="one has 1 to 2 tries a problem"):
        compared([run("++", "+")], [run("+", "+")])


marks = st.lists(st.tuples(*[st.sampled_from("+-?")] * 2), min_size=1, max_size=40)


@settings(deadline=None)
@given(marks, st.sampled_from(list(NAMES.values())))
def test_what_holds_is_never_a_tie(pairs, verdict):
    a, b = (run(*side) for side in zip(*pairs, strict=True))
    found = compared([a], [b], verdict=verdict, resamples=200)
    assert found.difference == pytest.approx((found.more_a - found.more_b) / found.n)
    low, high = found.interval
    assert low <= found.difference + 1e-12 and found.difference - 1e-12 <= high
    if found.holds:
        assert found.more_a != found.more_b and abs(found.more_a - found.more_b) > 5


def rejected(differing, n, runs):
    """Shares of `runs` pairs of equally good students that a rule at 5 % calls unequal."""
    rng = np.random.default_rng(11)
    found = dict.fromkeys(("exact", "mid", "bootstrap", "both"), 0)
    for _ in range(runs):
        chances = [differing / 2, 1 - differing, differing / 2]
        steps = rng.choice([-1, 0, 1], p=chances, size=n).tolist()
        p, mid_p = sign_flips(steps)
        low, high = ratio_bootstrap(steps, [1] * n, confidence=0.95, resamples=400, rng=rng)
        outside = not low <= 0 <= high
        found["exact"] += p < 0.05
        found["mid"] += mid_p < 0.05
        found["bootstrap"] += outside
        found["both"] += outside and p < 0.05
    return {name: count / runs for name, count in found.items()}


def test_equal_students_differ_beyond_noise_one_time_in_twenty():
    shares = rejected(0.2, 120, 1000)
    assert 0.01 < shares["exact"] <= 0.05 and 0.01 < shares["both"] <= 0.05
    assert 0.035 < shares["mid"] < 0.065
    assert 0.035 < shares["bootstrap"] < 0.075


def test_the_exact_test_guards_where_few_problems_differ():
    shares = rejected(0.02, 200, 1000)
    assert shares["bootstrap"] > 0.06
    assert shares["both"] < 0.02
