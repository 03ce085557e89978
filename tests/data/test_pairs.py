import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.data.buckets import in_bucket
from marco.data.pairs import pairs_of, shared_prefix

from .trees import chain

BUCKETS = st.sampled_from(["shortest", "medium", "longest", "any"])
CHOICES = st.sampled_from(["shortest_prefix", "longest_prefix", "random"])
sides = st.lists(st.text("ab", max_size=6), unique=True, max_size=12)


def pair_texts(correct, wrong, **choices):
    defaults = {"bucket": "any", "choice": "shortest_prefix", "per_tree": 9}
    pairs = pairs_of(
        [chain(text) for text in correct],
        [chain(text, verdict="wrong") for text in wrong],
        **{**defaults, "rng": random.Random(0), **choices},
    )
    return [(p.chosen.text, p.rejected.text, p.shared_prefix_tokens) for p in pairs]


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [
        ("", "", 0),
        ("", "a", 0),
        ("ab", "ab", 2),
        ("abc", "abd", 2),
        ("ab", "abc", 2),
        ("x", "a", 0),
    ],
)
def test_shared_prefix(left, right, length):
    assert shared_prefix(left, right) == shared_prefix(right, left) == length


@given(st.text("ab"), st.text("ab"))
def test_shared_prefix_equals_that_of_the_standard_library(left, right):
    assert shared_prefix(left, right) == len(os.path.commonprefix([left, right]))


def test_the_rejected_chains_are_ordered_by_their_common_prefix():
    wrong = ["abc9", "a9", "ab9"]  # sharing 3, 1 and 2 tokens with "abcd"
    by_shortest = [("abcd", "a9", 1), ("abcd", "ab9", 2), ("abcd", "abc9", 3)]
    assert pair_texts(["abcd"], wrong) == by_shortest
    assert pair_texts(["abcd"], wrong, choice="longest_prefix") == by_shortest[::-1]
    assert sorted(pair_texts(["abcd"], wrong, choice="random")) == sorted(by_shortest)


@pytest.mark.parametrize("choice", ["shortest_prefix", "longest_prefix"])
def test_equal_prefixes_are_ordered_by_difference_of_length_then_text(choice):
    rejected = [r for _, r, _ in pair_texts(["abcd"], ["z", "yyy", "xxxxxx", "www"], choice=choice)]
    assert rejected == ["www", "yyy", "xxxxxx", "z"]  # differences 1, 1, 2, 3


def test_each_chosen_chain_has_its_turn_before_any_has_a_second():
    # Three chosen chains in bucket `shortest` of nine, and three rejected ones.
    correct = ["c" * n for n in range(1, 10)]
    wrong = ["w" * n for n in range(1, 10)]
    pairs = pair_texts(correct, wrong, bucket="shortest", per_tree=4)
    assert [(c, r) for c, r, _ in pairs] == [("c", "w"), ("cc", "ww"), ("ccc", "www"), ("c", "ww")]


def test_both_sides_come_from_the_same_bucket():
    correct, wrong = ["c", "cc", "ccc"], ["w" * 10, "w" * 20, "w" * 30]
    for bucket, c, w in [("shortest", 1, 10), ("medium", 2, 20), ("longest", 3, 30)]:
        assert pair_texts(correct, wrong, bucket=bucket) == [("c" * c, "w" * w, 0)]


def test_bucket_any_does_not_favour_short_chosen_chains():
    correct, wrong = ["c" * n for n in range(1, 5)], ["w"]
    rng = random.Random(0)
    first = {pair_texts(correct, wrong, per_tree=1, rng=rng)[0][0] for _ in range(50)}
    assert first == set(correct)


def test_choice_random_takes_every_rejected_chain_at_times():
    rng = random.Random(0)
    wrong = ["w" * n for n in range(1, 5)]
    drawn = {
        pair_texts(["c"], wrong, choice="random", per_tree=1, rng=rng)[0][1] for _ in range(50)
    }
    assert drawn == set(wrong)


@pytest.mark.parametrize(("correct", "wrong"), [([], []), (["c"], []), ([], ["w"])])
def test_a_tree_without_both_sides_gives_no_pair(correct, wrong):
    assert pair_texts(correct, wrong) == []


@given(sides, sides, BUCKETS, CHOICES, st.integers(1, 20), st.integers(0, 3))
def test_pairs_are_distinct_and_as_many_as_there_can_be(
    correct, wrong, bucket, choice, per_tree, seed
):
    chosen = [chain("+" + text) for text in correct]
    rejected = [chain("-" + text, verdict="wrong") for text in wrong]
    choices = {"bucket": bucket, "choice": choice, "per_tree": per_tree}
    pairs = pairs_of(chosen, rejected, **choices, rng=random.Random(seed))
    allowed = in_bucket(chosen, bucket), in_bucket(rejected, bucket)
    assert len(pairs) == min(per_tree, len(allowed[0]) * len(allowed[1]))
    assert len({(p.chosen, p.rejected) for p in pairs}) == len(pairs)
    assert all(p.chosen in allowed[0] and p.rejected in allowed[1] for p in pairs)
    turns = [sum(p.chosen == c for p in pairs) for c in allowed[0]]
    assert not pairs or max(turns) - min(turns) <= 1
    assert pairs == pairs_of(chosen, rejected, **choices, rng=random.Random(seed))
