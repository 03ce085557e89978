"""Packing by hand, and what holds for any chains."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marco.errors import UserError
from marco.training import tree_attention
from marco.training.tree_attention import TreeLayout
from marco.training.tree_batch import (
    PackedPaths,
    TokenChain,
    TreeBatch,
    even_micro_batches,
    micro_batches,
)

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)
CHAINS = st.lists(
    st.builds(TokenChain, prompt=IDS, completion=IDS, skipped=st.just(0)), min_size=1, max_size=6
)


def chain(prompt: list[int], completion: list[int], skipped: int = 0) -> TokenChain:
    return TokenChain(prompt=tuple(prompt), completion=tuple(completion), skipped=skipped)


def seen(layout: TreeLayout) -> torch.Tensor:
    """[N, N] bool: who sees whom, by the blocks."""
    count = len(layout.ends)
    mask = torch.zeros(count, count, dtype=torch.bool)
    for block in layout.blocks:
        keys = torch.cat([block.path, torch.arange(block.start, block.stop)])
        visible = torch.ones(block.stop - block.start, len(keys), dtype=torch.bool)
        visible[:, block.open :] = ~block.hidden
        mask[block.start : block.stop, keys] = visible
    return mask


def test_two_chains_by_hand():
    batch = TreeBatch.pack([chain([7, 8], [1, 2, 9]), chain([7, 8], [1, 3, 9])])
    # Rows: 7, 8, 1, 2 of the first chain, and 3 of the second; a final 9 predicts nothing.
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3]]
    assert batch.layout.ends.tolist() == [5, 5, 5, 4, 5]
    assert seen(batch.layout).int().tolist() == [
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


def test_chains_stand_depth_first_in_whatever_order_they_come_by_hand():
    batch = TreeBatch.pack([chain([1], [5, 6, 9]), chain([1], [2, 9]), chain([1], [5, 4, 9])])
    # 1, then 2 below it; 5 below 1, with 4 and 6 below that.
    assert batch.input_ids.tolist() == [[1, 2, 5, 4, 6]]
    assert batch.layout.ends.tolist() == [5, 2, 5, 4, 5]


def test_skipped_tokens_are_seen_but_not_predicted_by_hand():
    batch = TreeBatch.pack([chain([7, 8], [1, 2, 9], skipped=1), chain([7, 8], [1, 3, 9])])
    whole = TreeBatch.pack([chain([7, 8], [1, 2, 9], skipped=1), chain([7, 8], [1, 3, 9], 1)])
    assert batch.input_ids.tolist() == whole.input_ids.tolist() == [[7, 8, 1, 2, 3]]
    assert batch.chain_mask.tolist() == [[False, True, True], [True, True, True]]
    # No chain asks for the 1 that 8 predicts: the head leaves out its row.
    assert whole.head_rows.tolist() == [2, 3, 4]
    assert whole.chain_targets.tolist() == [[4, 0, 2], [4, 1, 3]]


def test_a_batch_in_which_nothing_is_predicted():
    batch = TreeBatch.pack([chain([7, 8], [1, 9], skipped=2)])
    assert batch.head_rows.tolist() == [] and not batch.chain_mask.any()


@given(chains=CHAINS)
def test_targets_are_the_completions(chains: list[TokenChain]):
    batch = TreeBatch.pack(chains)
    for targets, mask, own in zip(batch.chain_targets, batch.chain_mask, chains, strict=True):
        assert tuple(batch.target_ids[targets[mask]].tolist()) == own.completion
        assert (targets[~mask] == len(batch.target_ids)).all()


@given(chains=CHAINS, sizes=st.tuples(st.integers(1, 4), st.integers(1, 5)))
def test_every_row_sees_its_ancestors_and_itself_whatever_the_blocks(
    chains: list[TokenChain], sizes: tuple[int, int]
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "MIN_ROWS", min(sizes))
        patch.setattr(tree_attention, "MAX_ROWS", max(sizes))
        batch = TreeBatch.pack(chains)
    mask = seen(batch.layout)
    rows = torch.arange(batch.tokens)
    by_ends = (rows <= rows[:, None]) & (rows[:, None] < batch.layout.ends)
    assert torch.equal(mask, by_ends)
    assert torch.equal(mask.sum(-1), batch.position_ids[0] + 1)
    paths = {c.path[:end] for c in chains for end in range(1, len(c.path) + 1)}
    assert batch.tokens == len(paths)
    # A row and those that it sees, in their order, are the path of tokens that it ends.
    for row in range(batch.tokens):
        assert tuple(batch.input_ids[0, mask[row]].tolist()) in paths


@given(chains=CHAINS)
def test_packed_paths_count_the_rows_of_a_batch(chains: list[TokenChain]):
    packed = PackedPaths()
    for own in chains:
        packed.add(own.path)
    assert packed.rows == TreeBatch.pack(chains).tokens


@given(examples=st.lists(CHAINS, max_size=6), max_tokens=st.integers(1, 30))
def test_micro_batches_keep_order_and_size(examples: list, max_tokens: int):
    groups = list(micro_batches(examples, max_tokens=max_tokens))
    assert [i for group in groups for i in group] == list(range(len(examples)))
    for group in groups:
        chains = [own for i in group for own in examples[i]]
        assert len(group) == 1 or TreeBatch.pack(chains).tokens <= max_tokens


def test_a_tree_larger_than_the_budget_is_split_at_a_branch_by_hand():
    examples = [[chain([1, 2], [3, i, 9])] for i in (4, 5, 6)]
    # Three rows to the branch, and one more for each chain.
    assert list(micro_batches(examples, max_tokens=5)) == [[0, 1], [2]]


def packed_tokens(examples: list, group: list[int]) -> int:
    packed = PackedPaths()
    for i in group:
        for one in examples[i]:
            packed.add(one.path)
    return packed.rows


@given(examples=st.lists(CHAINS, min_size=1, max_size=6), max_tokens=st.integers(1, 30))
def test_even_micro_batches_are_as_few_and_the_largest_is_the_least(
    examples: list, max_tokens: int
):
    full = list(micro_batches(examples, max_tokens=max_tokens))
    even = even_micro_batches(examples, max_tokens=max_tokens)
    assert len(even) == len(full) and sum(even, []) == list(range(len(examples)))
    largest = max(packed_tokens(examples, group) for group in even)
    assert largest <= max(packed_tokens(examples, group) for group in full)
    # Slow twin: no smaller limit makes as few (but for what alone is larger than a limit).
    least = next(
        limit
        for limit in range(max_tokens + 1)
        if len(list(micro_batches(examples, max_tokens=limit))) == len(full)
    )
    assert largest <= max(least, *(packed_tokens(examples, [i]) for i in range(len(examples))))


def test_even_micro_batches_by_hand():
    lengths = [400, 400, 400, 400, 400, 100]  # 2,100 of chains that share nothing
    examples = [[chain([i], [i] * (n - 1))] for i, n in enumerate(lengths)]
    assert list(micro_batches(examples, max_tokens=2048)) == [[0, 1, 2, 3, 4], [5]]
    assert even_micro_batches(examples, max_tokens=2048) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("chains", [[], [chain([], [1])], [chain([1], [])]])
def test_chains_without_tokens_are_refused(chains: list):
    with pytest.raises(UserError, match="without prompt tokens or completion tokens"):
        TreeBatch.pack(chains)
