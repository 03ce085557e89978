"""The trie by hand, and what holds for any chains."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marco.errors import UserError
from marco.training.tree_batch import TokenTrie, TreeBatch, micro_batches

CHAINS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=4),
        st.lists(st.integers(0, 2), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=6,
)


def test_two_chains_by_hand():
    batch = TreeBatch.pack([([7, 8], [1, 2, 9]), ([7, 8], [1, 3, 9])])
    # Rows: 7, 8, 1, 2 of the first chain, and 3 of the second; a final 9 predicts nothing.
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3]]
    assert [segment.keys.tolist() for segment in batch.segments] == [[0, 1, 2, 3, 4]]
    assert batch.segments[0].mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    # 8 predicts 1; 1 predicts 2 and 3; 2 and 3 each predict 9.
    assert batch.head_rows.tolist() == [1, 2, 3, 4]
    assert batch.target_head_rows.tolist() == [0, 1, 1, 2, 3]
    assert batch.target_ids.tolist() == [1, 2, 3, 9, 9]
    assert batch.chain_targets.tolist() == [[0, 1, 3], [0, 2, 4]]


def test_a_second_tree_sees_the_start_that_it_shares_and_itself_by_hand():
    batch = TreeBatch.pack([([7, 8], [1, 9]), ([7, 5], [2, 9]), ([7], [9])])
    # Rows 0 to 2 (7, 8, 1) of the first tree; 3 and 4 (5, 2) of the second; the third has none.
    assert batch.input_ids.tolist() == [[7, 8, 1, 5, 2]]
    first, second = batch.segments
    assert first.keys.tolist() == [0, 1, 2]
    assert second.keys.tolist() == [0, 3, 4]
    assert second.mask.int().tolist() == [[1, 1, 0], [1, 1, 1]]


@given(chains=CHAINS)
def test_chain_ids_are_the_completions(chains: list):
    batch = TreeBatch.pack(chains)
    for ids, mask, (_, completion) in zip(batch.chain_ids, batch.chain_mask, chains, strict=True):
        assert ids[mask].tolist() == completion
        assert not ids[~mask].any()


@given(chains=CHAINS)
def test_every_row_sees_its_depth_and_itself(chains: list):
    batch = TreeBatch.pack(chains)
    seen = torch.cat([segment.mask.sum(-1) for segment in batch.segments])
    assert torch.equal(seen, batch.position_ids[0] + 1)
    paths = {tuple([*p, *c][:end]) for p, c in chains for end in range(1, len(p) + len(c))}
    assert batch.tokens == len(paths)


@given(chains=CHAINS, more=CHAINS)
def test_missing_counts_the_rows_that_adding_costs(chains: list, more: list):
    trie = TokenTrie()
    for path, _ in chains:
        trie.add(path)
    paths = [[*prompt, *completion] for prompt, completion in more]
    expected = len(trie) + trie.missing(paths)
    for path in paths:
        trie.add(path)
    assert len(trie) == expected


@given(examples=st.lists(CHAINS, max_size=6), max_tokens=st.integers(1, 30))
def test_micro_batches_keep_order_and_size(examples: list, max_tokens: int):
    groups = list(micro_batches(examples, max_tokens=max_tokens))
    assert [i for group in groups for i in group] == list(range(len(examples)))
    for group in groups:
        chains = [chain for i in group for chain in examples[i]]
        assert len(group) == 1 or TreeBatch.pack(chains).tokens <= max_tokens


@pytest.mark.parametrize("chains", [[], [([], [1])], [([1], [])]])
def test_chains_without_tokens_are_refused(chains: list):
    with pytest.raises(UserError, match="without prompt tokens or completion tokens"):
        TreeBatch.pack(chains)
