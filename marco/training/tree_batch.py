"""Chains of one or several trees packed in one row, where every distinct token path stands once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from marco.errors import UserError
from marco.training.tree_attention import Segment

TokenChain = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its completion (with the end-of-sequence token)."""


class TokenTrie:
    """Rows of a packed batch: one per distinct path of tokens from the start of a prompt."""

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, ids: Sequence[int]) -> list[int]:
        """Add a path of tokens; returns the row of each of them."""
        rows, row = [], -1
        for depth, token in enumerate(ids):
            key = (row, token)
            if key not in self._children:
                self._children[key] = len(self.tokens)
                self.parents.append(row)
                self.tokens.append(token)
                self.depths.append(depth)
            row = self._children[key]
            rows.append(row)
        return rows

    def missing(self, paths: Sequence[Sequence[int]]) -> int:
        """How many rows adding these paths would cost (a new row that they share counts once)."""
        new: dict[tuple[int, int], int] = {}
        for ids in paths:
            row = -1
            for token in ids:
                key = (row, token)
                if key in self._children:
                    row = self._children[key]
                else:
                    row = new.setdefault(key, -2 - len(new))
        return len(new)


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeBatch:
    """One packed row of N tokens that stands for C chains of up to T completion tokens.

    A token attends to itself and its ancestors, and its position is its depth, so each chain is
    computed as if it were alone. The last token of a chain predicts nothing and has no row. A
    target is a distinct (row, next token); M of them, sorted by row, on R distinct rows.

    input_ids, position_ids: [1, N]; segments: the rows of each problem, in order, N together, and
    what they attend to; head_rows: [R] rows of the input that predict something;
    target_head_rows: [M] index into `head_rows`; target_ids: [M] tokens; chain_targets: [C, T]
    index into the targets, 0 where padded; chain_mask: [C, T] bool.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    head_rows: Tensor
    target_head_rows: Tensor
    target_ids: Tensor
    chain_targets: Tensor
    chain_mask: Tensor

    @classmethod
    def pack(cls, chains: Sequence[TokenChain]) -> "TreeBatch":
        """Pack chains; raises `UserError` where a prompt or a completion has no token."""
        if not chains or any(not prompt or not completion for prompt, completion in chains):
            raise UserError("cannot train on a chain without prompt tokens or completion tokens")
        trie = TokenTrie()
        paths: list[list[int]] = [[] for _ in chains]
        segments = []
        for tree in _by_prompt(chains):
            start = len(trie)
            for i in tree:
                prompt, completion = chains[i]
                paths[i] = trie.add([*prompt, *completion][:-1])
            if len(trie) > start:
                segments.append(_segment(range(start, len(trie)), [paths[i] for i in tree]))
        labels = [
            list(zip(rows[len(prompt) - 1 :], completion, strict=True))
            for rows, (prompt, completion) in zip(paths, chains, strict=True)
        ]
        targets = sorted({label for chain in labels for label in chain})
        index = {target: i for i, target in enumerate(targets)}
        head_rows, target_head_rows = torch.unique_consecutive(
            torch.tensor([row for row, _ in targets]), return_inverse=True
        )
        chain_targets = torch.zeros(len(chains), max(map(len, labels)), dtype=torch.long)
        chain_mask = torch.zeros_like(chain_targets, dtype=torch.bool)
        for i, chain in enumerate(labels):
            chain_targets[i, : len(chain)] = torch.tensor([index[label] for label in chain])
            chain_mask[i, : len(chain)] = True
        return cls(
            input_ids=torch.tensor([trie.tokens]),
            position_ids=torch.tensor([trie.depths]),
            segments=tuple(segments),
            head_rows=head_rows,
            target_head_rows=target_head_rows,
            target_ids=torch.tensor([token for _, token in targets]),
            chain_targets=chain_targets,
            chain_mask=chain_mask,
        )

    @property
    def tokens(self) -> int:
        """N, the tokens that are computed."""
        return self.input_ids.shape[1]

    @property
    def chain_ids(self) -> Tensor:
        """[C, T] completion tokens, 0 where padded."""
        return torch.where(self.chain_mask, self.target_ids[self.chain_targets], 0)

    def to(self, device: torch.device | str) -> "TreeBatch":
        """The same batch on another device."""
        tensors = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "segments"
        }
        return TreeBatch(**tensors, segments=tuple(s.to(device) for s in self.segments))


def _by_prompt(chains: Sequence[TokenChain]) -> list[list[int]]:
    """Indices of the chains of each prompt: these are the trees of a batch."""
    trees: dict[tuple[int, ...], list[int]] = {}
    for i, (prompt, _) in enumerate(chains):
        trees.setdefault(tuple(prompt), []).append(i)
    return list(trees.values())


def _segment(new: range, paths: Sequence[Sequence[int]]) -> Segment:
    """The rows `new` that a tree added, where `paths` are the rows of its chains."""
    keys = sorted({row for path in paths for row in path if row < new.start}) + list(new)
    place = {row: i for i, row in enumerate(keys)}
    mask = torch.zeros(len(keys), len(keys), dtype=torch.bool)
    for path in paths:
        rows = torch.tensor([place[row] for row in path])
        # Rows that an earlier path wrote get the same ancestors again.
        mask[rows[:, None], rows] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
    return Segment(keys=torch.tensor(keys), mask=mask[len(keys) - len(new) :])


def micro_batches(
    examples: Sequence[Sequence[TokenChain]], *, max_tokens: int
) -> Iterator[list[int]]:
    """Split examples, in their order, into groups of at most `max_tokens` packed tokens.

    An example is the chains that must stay together (one, or a pair); one that is larger than
    `max_tokens` alone is a group of its own. Yields indices into `examples`.
    """
    trie, group = TokenTrie(), []
    for i, chains in enumerate(examples):
        paths = [[*prompt, *completion][:-1] for prompt, completion in chains]
        if group and len(trie) + trie.missing(paths) > max_tokens:
            yield group
            trie, group = TokenTrie(), []
        for path in paths:
            trie.add(path)
        group.append(i)
    if group:
        yield group
