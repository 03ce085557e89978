import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.data.buckets import in_bucket

from .trees import chain

BUCKETS = ["shortest", "medium", "longest", "any"]
texts = st.lists(st.text("ab", max_size=6), unique=True, max_size=12)


@pytest.mark.parametrize(
    ("n", "shortest", "medium", "longest"),
    [
        (0, [], [], []),
        (1, [1], [1], [1]),
        (2, [1], [1], [2]),
        (3, [1], [2], [3]),
        (4, [1, 2], [2, 3], [4, 3]),
        (5, [1, 2], [3, 2], [5, 4]),
        (6, [1, 2], [3, 4], [6, 5]),
        (9, [1, 2, 3], [5, 4, 6], [9, 8, 7]),
    ],
)
def test_thirds_of_chains_of_1_to_n_tokens(n, shortest, medium, longest):
    chains = [chain("x" * length) for length in range(n, 0, -1)]
    lengths = {b: [c.tokens for c in in_bucket(chains, b)] for b in BUCKETS}
    assert lengths["shortest"] == shortest
    assert lengths["medium"] == medium
    assert lengths["longest"] == longest
    assert lengths["any"] == list(range(1, n + 1))


def test_equal_lengths_are_ordered_by_text():
    chains = [chain(text) for text in ("cc", "aa", "bb")]
    assert [c.text for c in in_bucket(chains, "shortest")] == ["aa"]
    assert [c.text for c in in_bucket(chains, "longest")] == ["cc"]


@given(texts, st.randoms(use_true_random=False))
def test_a_bucket_is_a_third_rounded_up_and_ignores_the_order_of_its_chains(texts, rng):
    chains = [chain(text) for text in texts]
    shuffled = rng.sample(chains, len(chains))
    for bucket in BUCKETS:
        taken = in_bucket(chains, bucket)
        assert taken == in_bucket(shuffled, bucket)
        assert len(set(taken)) == len(taken)
        assert set(taken) <= set(chains)
        share = 1 if bucket == "any" else 3
        assert share * len(taken) >= len(chains) > share * (len(taken) - 1) or not chains


@given(texts.filter(bool))
def test_the_buckets_are_ordered_in_length(texts):
    chains = [chain(text) for text in texts]
    low, middle, high = ([c.tokens for c in in_bucket(chains, b)] for b in BUCKETS[:3])
    assert min(low) == min(map(len, texts))
    assert max(high) == max(map(len, texts))
    assert min(low) <= min(middle) <= min(high)
    assert max(low) <= max(middle) <= max(high)
