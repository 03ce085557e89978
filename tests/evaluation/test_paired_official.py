"""Two students by the official metric on the same problems: by hand, in the limits, by chance."""

import random
from typing import Any

import numpy as np
import pytest

from marco.errors import UserError
from marco.evaluation.official import Counts
from marco.evaluation.paired import Comparison, Run, compare, mismatch
from marco.evaluation.statistics import difference_of_shares, no_difference
from marco.tasks.instructions.figures import by_turn_and_language

from .test_official import Sample, conversations, sample


def run(samples: list[Sample], source: str = "one") -> Run:
    own = [{"task": "multi_if"} | row for row in samples]
    return Run(
        source=source,
        verdicts=Run.of(own, source=source).verdicts,
        prompts={row["id"]: None for row in own},
        counts=Counts.of(own),
    )


def marks(*problems: str, **more: Any) -> list[Sample]:
    return [sample(f"p{i}", own, **more) for i, own in enumerate(problems)]


def compared(a: list[Run], b: list[Run], resamples: int = 2000) -> Comparison:
    return compare(
        a,
        b,
        verdict="correct",
        confidence=0.95,
        resamples=resamples,
        rng=np.random.default_rng(0),
    )


def test_four_accuracies_by_hand():
    # Prompts 2/4 and 1/4, instructions 4/6 and 3/6, strict as loose.
    found = compared([run(marks("++", "+-", "-", "+"))], [run(marks("+-", "+-", "-", "+"))])
    assert (found.a, found.b) == (pytest.approx(7 / 12), pytest.approx(3 / 8))
    assert (found.n, found.more_a, found.more_b) == (4, 1, 0)
    assert found.difference == pytest.approx((1 / 4 + 1 / 6) / 2)
    assert (found.p, found.test, found.holds) == (1, "drawn_sign_flips", False)


def test_each_turn_and_language_counts_once():
    def talks(chinese: str) -> list[Sample]:
        english = [sample(f"e{i}", "+", group="English") for i in range(10)]
        return english + [sample(f"c{i}", m, group="Chinese") for i, m in enumerate(chinese)]

    found = compared([run(talks("++++"))], [run(talks("+++-"))])
    assert found.difference == pytest.approx(1 / 4 / 2) and found.n == 14
    # The English problems say nothing of the difference, and bound it all the same.
    assert found.interval[0] <= 0 < found.interval[1]


def test_single_instructions_in_one_language_are_compared_as_samples_are():
    a, b = "+" * 60 + "-" * 40, "+" * 50 + "-" * 45 + "+" * 5
    official = compared([run(marks(*a))], [run(marks(*b))], resamples=5000)
    plain = [
        Run.of(
            [{"id": f"p{i}", "verdict": "correct" if m == "+" else "wrong"} for i, m in own],
            source="s",
        )
        for own in (enumerate(a), enumerate(b))
    ]
    exact = compared([plain[0]], [plain[1]], resamples=5000)
    assert (official.a, official.b) == (pytest.approx(exact.a), pytest.approx(exact.b))
    assert (official.more_a, official.more_b) == (exact.more_a, exact.more_b) == (10, 5)
    assert official.p == pytest.approx(exact.p, abs=0.02)
    assert official.interval == pytest.approx(exact.interval, abs=0.02)


def test_pairs_see_what_two_independent_rows_do_not():
    found = compared([run(marks(*"+" * 60 + "-" * 40))], [run(marks(*"+" * 50 + "-" * 50))])
    low, high = difference_of_shares(0.6, 100, 0.5, 100, confidence=0.95)
    assert low < 0 < high and found.holds
    turned = compared([run(marks(*"+" * 50 + "-" * 50))], [run(marks(*"+" * 60 + "-" * 40))])
    assert turned.difference == -found.difference
    assert turned.p == pytest.approx(found.p, abs=0.01)


def test_few_problems_on_one_side_are_no_finding():
    # The bootstrap alone leaves zero out; four fair coins fall alike one time in eight.
    found = compared([run(marks(*"++++" + "-" * 96))], [run(marks(*"-" * 100))])
    assert found.over_problems[0] > 0 and found.p == pytest.approx(1 / 8, abs=0.03)
    assert not found.holds


def test_where_draws_say_nothing_the_problems_still_bound_the_difference():
    same = compared([run(marks("++", "+-", "-"))], [run(marks("++", "+-", "-"))])
    assert (same.difference, same.p, same.holds) == (0, 1, False)
    assert same.interval == no_difference(3, confidence=0.95)
    apart = compared([run(marks(*"+" * 10))], [run(marks(*"-" * 10))])
    assert apart.interval == pytest.approx(difference_of_shares(1, 10, 0, 10, confidence=0.95))
    assert apart.p < 0.01 and apart.holds
    single = [[*marks(*"++-", group="English"), sample("x", m, group="Hindi")] for m in "+-"]
    found = compared([run(single[0])], [run(single[1])])
    # One Hindi problem and three English ones are as sure as 4 / (1/1 + 1/3) = 3 of one language.
    expected = difference_of_shares(5 / 6, 3, 2 / 6, 3, confidence=0.95)
    assert found.interval == pytest.approx(expected)


def test_seeds_and_tries_are_averaged_and_tell_their_own_noise():
    a = [run(marks(*"+" * k + "-" * (100 - k))) for k in (70, 60, 80)]
    b = [run(marks(*"+" * k + "-" * (100 - k))) for k in (52, 56)]
    found = compared(a, b)
    assert (found.a, found.b) == (pytest.approx(0.7), pytest.approx(0.54))
    assert found.over_problems[0] > 0 and found.over_seeds and found.over_seeds[0] < 0
    assert (found.noise, found.holds) == ("problems and seeds", False)
    tries = [row | {"try": k} for k in range(4) for row in marks("++", "+-" if k else "--")]
    found = compared([run(tries)], [run(marks("++", "--"))])
    assert found.a == pytest.approx((1 / 2 + (2 + 3 / 4) / 4) / 2)
    assert found.difference == pytest.approx(3 / 4 / 4 / 2)


def test_the_difference_is_that_of_the_task_s_own_figures():
    draw = random.Random(2)
    a = conversations("English", 9, chance=0.8) + conversations("Thai", 5, chance=0.5, turns=2)
    b = [
        sample(
            r["id"],
            "".join(draw.choice("+-") for _ in r["details"]["strict"]),
            turn=r["turn"],
            group=r["group"],
        )
        for r in a
    ]
    found = compared([run(a)], [run(b)])
    figures = [by_turn_and_language(side)["official"] for side in (a, b)]
    assert (found.a, found.b) == (pytest.approx(figures[0]), pytest.approx(figures[1]))
    low, high = found.interval
    assert low < found.difference < high


def test_other_instructions_are_refused():
    a, b = run(marks("++", "+"), source="sft"), run(marks("+", "++"), source="dpo")
    with pytest.raises(UserError, match="sft and dpo were graded by other instructions"):
        compared([a], [b])
    assert "or languages" in str(mismatch([a], [run(marks("++", "+", group="Thai"))]))


def test_equal_students_differ_beyond_noise_one_time_in_twenty_or_less():
    rng, found = np.random.default_rng(3), 0
    for _ in range(200):
        pair: list[list[Sample]] = [[], []]
        for i in range(60):
            ease = rng.beta(3, 2)
            for side in pair:
                side.append(
                    sample(f"p{i}", "".join("+" if rng.random() < ease else "-" for _ in range(2)))
                )
        found += compared([run(pair[0])], [run(pair[1])], resamples=200).holds
    assert 0 < found <= 15
