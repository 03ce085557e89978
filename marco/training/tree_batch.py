"""Chains of one or several trees packed in one row, where every distinct token path stands once."""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marco.data.pairs import shared_prefix
from marco.errors import UserError
from marco.training.tree_attention import TreeLayout


@dataclass(frozen=True, kw_only=True)
class TokenChain:
    """Token ids of a prompt and of its completion, which ends in the end-of-sequence token.

    The log-probabilities of the first `skipped` tokens of the completion are not computed: these
    tokens are there for the others to see.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    skipped: int = 0

    @property
    def path(self) -> tuple[int, ...]:
        """The tokens that stand in a row: the last one predicts nothing."""
        return self.prompt + self.completion[:-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeBatch:
    """One packed row of N tokens that stands for C chains of up to T completion tokens.

    Rows stand depth-first. A token attends to itself and its ancestors, and its position is its
    depth, so each chain is computed as if it were alone. A target is a distinct (row, next token);
    M of them, sorted by row, on R distinct rows.

    input_ids, position_ids: [1, N]; layout: who attends to whom; head_rows: [R] rows of the input
    that predict something; target_head_rows: [M] index into `head_rows`; target_ids: [M] tokens;
    chain_targets: [C, T] index into the targets, M where no log-probability is asked for;
    chain_mask: [C, T] bool, True where one is.
    """

    input_ids: Tensor
    position_ids: Tensor
    layout: TreeLayout
    head_rows: Tensor
    target_head_rows: Tensor
    target_ids: Tensor
    chain_targets: Tensor
    chain_mask: Tensor

    @classmethod
    def pack(cls, chains: Sequence[TokenChain]) -> "TreeBatch":
        """Pack chains; raises `UserError` where a prompt or a completion has no token."""
        if not chains or any(not chain.prompt or not chain.completion for chain in chains):
            raise UserError("cannot train on a chain without prompt tokens or completion tokens")
        tokens: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        ends: list[int] = []
        rows: list[list[int]] = [[] for _ in chains]
        above: tuple[int, ...] = ()
        path: list[int] = []
        # In the order of their ids, chains that share a prefix are neighbours: depth-first.
        for i in sorted(range(len(chains)), key=lambda i: chains[i].path):
            ids = chains[i].path
            shared, first = shared_prefix(above, ids), len(tokens)
            for row in path[shared:]:
                ends[row] = first
            new = list(range(first, first + len(ids) - shared))
            path = path[:shared] + new
            tokens += ids[shared:]
            parents += [path[shared - 1] if shared else -1, *new][: len(new)]
            depths += range(shared, len(ids))
            ends += [0] * len(new)
            above, rows[i] = ids, path
        for row in path:
            ends[row] = len(tokens)
        return cls(
            input_ids=torch.tensor([tokens]),
            position_ids=torch.tensor([depths]),
            layout=TreeLayout.of(parents, ends),
            **_targets(chains, rows),
        )

    @property
    def tokens(self) -> int:
        """N, the tokens that are computed."""
        return self.input_ids.shape[1]

    def to(self, device: torch.device | str) -> "TreeBatch":
        """The same batch on another device."""
        return TreeBatch(**{name: value.to(device) for name, value in vars(self).items()})


def _targets(chains: Sequence[TokenChain], rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """What is predicted, where `rows` are the rows of each chain."""
    labels = [
        list(zip(path[len(c.prompt) - 1 :], c.completion, strict=True))[c.skipped :]
        for path, c in zip(rows, chains, strict=True)
    ]
    targets = sorted({label for chain in labels for label in chain})
    index = {target: i for i, target in enumerate(targets)}
    head_rows, target_head_rows = torch.unique_consecutive(
        torch.tensor([row for row, _ in targets], dtype=torch.long), return_inverse=True
    )
    size = len(chains), max(len(chain.completion) for chain in chains)
    chain_targets = torch.full(size, len(targets))
    chain_mask = torch.zeros(size, dtype=torch.bool)
    for i, (chain, own) in enumerate(zip(chains, labels, strict=True)):
        places = slice(chain.skipped, len(chain.completion))
        chain_targets[i, places] = torch.tensor([index[label] for label in own], dtype=torch.long)
        chain_mask[i, places] = True
    return {
        "head_rows": head_rows,
        "target_head_rows": target_head_rows,
        "target_ids": torch.tensor([token for _, token in targets], dtype=torch.long),
        "chain_targets": chain_targets,
        "chain_mask": chain_mask,
    }


class PackedPaths:
    """How many rows a set of paths takes, where every distinct path of tokens stands once."""

    def __init__(self) -> None:
        self.rows = 0
        self._sorted: list[tuple[int, ...]] = []

    def add(self, path: tuple[int, ...]) -> None:
        # What it shares with any other path it shares with a neighbour.
        place = bisect(self._sorted, path)
        neighbours = self._sorted[max(place - 1, 0) : place + 1]
        self._sorted.insert(place, path)
        self.rows += len(path) - max((shared_prefix(path, n) for n in neighbours), default=0)


def micro_batches(
    examples: Sequence[Sequence[TokenChain]], *, max_tokens: int
) -> Iterator[list[int]]:
    """Split examples, in their order, into groups of at most `max_tokens` packed tokens.

    An example is the chains that must stay together (one, or a pair); one that is larger than
    `max_tokens` alone is a group of its own. So a tree that is too large is split between its
    chains, and the path to the branch stands in both groups. Yields indices into `examples`.
    """
    packed, group = PackedPaths(), []
    for i, chains in enumerate(examples):
        for chain in chains:
            packed.add(chain.path)
        if group and packed.rows > max_tokens:
            yield group
            packed, group = PackedPaths(), []
            for chain in chains:
                packed.add(chain.path)
        group.append(i)
    if group:
        yield group


def even_micro_batches(
    examples: Sequence[Sequence[TokenChain]], *, max_tokens: int
) -> list[list[int]]:
    """As few groups as `micro_batches` makes, but of sizes that are nearly alike.

    The largest decides on memory: it is within 1/64 of `max_tokens` of the least that is possible
    with groups in order.
    """
    groups = list(micro_batches(examples, max_tokens=max_tokens))
    enough, too_few = max_tokens, 0
    while len(groups) > 1 and enough - too_few > max(max_tokens // 64, 1):
        middle = (enough + too_few) // 2
        tried = list(micro_batches(examples, max_tokens=middle))
        if len(tried) == len(groups):
            groups, enough = tried, middle
        else:
            too_few = middle
    return groups
