from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.evaluation.errors.loops import Run, codes, longest_run, near_runs


def found(text: str, *, repeats: int = 3, length: int = 1, max_period: int = 99) -> Run | None:
    return longest_run(codes(text), repeats=repeats, length=length, max_period=max_period)


def naive(text: str, *, repeats: int, length: int, max_period: int) -> Run | None:
    """The slow twin: for every period, walk along the text."""
    runs = []
    for period in range(1, min(max_period, len(text) // repeats) + 1):
        start = 0
        while start + period < len(text):
            stop = start
            while stop + period < len(text) and text[stop] == text[stop + period]:
                stop += 1
            covered = stop + period - start
            if covered >= max(length, repeats * period):
                runs.append(Run(start=start, length=covered, period=period))
            start = stop + 1
    return max(runs, key=lambda r: (r.length, -r.period, -r.start), default=None)


@pytest.mark.parametrize(
    ("text", "start", "length", "period"),
    [
        ("aaa", 0, 3, 1),
        ("xaaay", 1, 3, 1),
        ("abcabcabc", 0, 9, 3),
        ("xyabcabcabcab", 2, 11, 3),  # cut off within the fourth copy
        ("abcabcabcabz", 0, 11, 3),
        ("abababXcdcdcdcd", 7, 8, 2),  # the longer of two
        ("ababab" + "X" + "cdcdcd", 0, 6, 2),  # of equal ones the first
        ("abcdabcdabcd" * 3, 0, 36, 4),  # never a multiple of its period
        ("aabaabaab", 0, 9, 3),  # a window of "a" recurs earlier than the block does
    ],
)
def test_runs_by_hand(text: str, start: int, length: int, period: int) -> None:
    assert found(text) == Run(start=start, length=length, period=period)


def test_what_is_too_short_or_too_seldom_is_no_run() -> None:
    assert found("") is None
    assert found("abcabcab") is None  # 2.7 copies
    assert found("abcabcabc", length=10) is None
    assert found("abcabcabc", max_period=2) is None
    longest = found(("a" * 9 + "b") * 3, max_period=9)  # the whole has period 10
    assert longest == Run(start=0, length=9, period=1)
    assert found("abcabcabc", repeats=4) is None
    assert found("abcabcabcabc", repeats=4) is not None


def test_fewer_than_three_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 or more"):
        found("aa", repeats=2)


texts = st.text("ab", max_size=60) | st.text("abc", max_size=60)
loops = st.tuples(
    st.text("ab", max_size=12),
    st.text("abc", min_size=1, max_size=14),
    st.integers(2, 5),
    st.text("ab", max_size=12),
).map(lambda parts: parts[0] + parts[1] * parts[2] + parts[3])


@given(texts | loops, st.integers(3, 5), st.integers(1, 20), st.integers(1, 20))
def test_runs_are_those_of_the_naive_search(
    text: str, repeats: int, length: int, max_period: int
) -> None:
    limits = {"repeats": repeats, "length": length, "max_period": max_period}
    assert found(text, **limits) == naive(text, **limits)


@given(
    st.integers(1, 400), st.integers(3, 6), st.integers(0, 399), st.randoms(use_true_random=False)
)
def test_a_long_block_is_found_wherever_it_stands(period, repeats, rest, random) -> None:
    """Three copies are enough at any period, and the last may be cut off."""
    before = "".join(chr(1000 + i) for i in range(random.randrange(300)))
    block = "".join(random.choice("abcdefgh") for _ in range(period - 1)) + "."
    text = before + block * repeats + block[: rest % period]
    run = found(text, length=3 * period, max_period=400)
    assert run == Run(start=len(before), length=len(text) - len(before), period=period)


@given(st.text(max_size=30), st.integers(1, 4))
def test_any_text_with_surrogates_too(text: str, max_period: int) -> None:
    text = text + "\ud800" * 3
    limits = {"repeats": 3, "length": 2, "max_period": max_period}
    assert found(text, **limits) == naive(text, **limits)


def near(forms: Sequence[str], **changes: float) -> list[tuple[int, int, int]]:
    limits = {"agreement": 0.8, "compared": 10, "max_period": 4, **changes}
    return [(run.start, run.length, run.period) for run in near_runs(forms, **limits)]


def test_near_runs_by_hand() -> None:
    assert near([]) == near(["a"]) == near(["a", "b", "c"]) == []
    assert near(["x", "a", "a", "a", "y"]) == [(1, 3, 1), (1, 3, 2)]
    assert near(["a", "b"] * 3, max_period=2) == [(0, 6, 2)]


def test_sentences_agree_by_their_start_or_their_end() -> None:
    heads = ["the same start " + end for end in ("one way", "another way", "and yet differently")]
    tails = [start + " with the same end" for start in ("one", "two", "and three")]
    assert near(heads, max_period=1) == near(tails, max_period=1) == [(0, 3, 1)]
    assert near(["only the", "beginning is", "not alike"]) == []


def test_a_run_goes_on_over_few_disagreements() -> None:
    forms = ["a"] * 10 + ["other"] + ["a"] * 10
    # 9 agree, then 2 do not (the other one and the one after it, at 4 agreements each), 9 agree.
    assert near(forms, max_period=1, agreement=0.8)[0] == (0, 21, 1)
    assert near(forms, max_period=1, agreement=0.9)[0] == (0, 10, 1)  # at 9 agreements each


def test_a_run_that_ends_the_response_is_told() -> None:
    def is_last(forms: list[str]) -> bool:
        return next(iter(near_runs(forms, agreement=0.8, compared=10, max_period=1))).is_last

    assert is_last(["x", "a", "a", "a"])
    assert is_last(["x", "a", "a", "a", "cut"])
    assert not is_last(["a", "a", "a", "so it", "is four"])


@given(st.lists(st.sampled_from("ab"), max_size=30), st.sampled_from([0.5, 0.8, 0.9]))
def test_near_runs_agree_as_much_as_is_asked(forms: list[str], agreement: float) -> None:
    for run in near_runs(forms, agreement=agreement, compared=1, max_period=5):
        inside = range(run.start + run.period, run.start + run.length)
        agreeing = [forms[i] == forms[i - run.period] for i in inside]
        assert run.agreement == pytest.approx(np.mean(agreeing))
        assert run.agreement > agreement
        assert run.start + run.length <= len(forms)
