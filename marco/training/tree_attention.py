"""Attention in a packed row of trees: every token sees itself and its ancestors.

Rows stand depth-first, so the descendants of a row follow it without a gap, and one number a row,
where they end, says who sees whom. On a GPU that is FlexAttention's mask; on a CPU, where
FlexAttention has no backward, dense products run block by block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

NAME = "marco_tree"
"""Its name for `attn_implementation`."""

# Rows of a block. Fewer rows see fewer keys in vain where branches are short; more make fewer,
# larger products.
MIN_ROWS, MAX_ROWS = 48, 256
# Attention weights that a layer may keep for its backward; beyond, they are computed again. 2**24
# in bf16 are 32 MB.
KEPT_WEIGHTS = 2**24


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Rows `start` to `stop` of a packed row, and what they may see.

    Their keys are `path`, the [A] ancestors of row `start`, then the Q rows themselves: depth-first
    no row of the block has another ancestor. The first `open` keys are seen by every row; hidden:
    [Q, A + Q - open] bool, True where a row does not see one of the others.
    """

    start: int
    stop: int
    path: Tensor
    open: int
    hidden: Tensor

    def to(self, device: torch.device | str) -> "Block":
        return Block(
            start=self.start,
            stop=self.stop,
            path=self.path.to(device),
            open=self.open,
            hidden=self.hidden.to(device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeLayout:
    """Who sees whom: row i sees row j where j <= i < ends[j]; ends: [N], blocks as they follow."""

    ends: Tensor
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, parents: Sequence[int], ends: Sequence[int]) -> "TreeLayout":
        """parents: the row above each of N rows, -1 for a root; ends: one past its descendants."""
        after, rows = torch.tensor(ends), torch.arange(len(ends))
        blocks = []
        for start, stop in _cuts(parents):
            path, row = [], parents[start]
            while row >= 0:
                path.append(row)
                row = parents[row]
            path.reverse()
            # The ends of a path fall with depth: who stays to the end of the block comes first.
            is_open = [ends[row] >= stop for row in path]
            seen = sum(is_open)
            keys = torch.cat([torch.tensor(path[seen:], dtype=torch.long), rows[start:stop]])
            queries = rows[start:stop, None]
            hidden = (keys > queries) | (after[keys] <= queries)
            blocks.append(
                Block(
                    start=start,
                    stop=stop,
                    path=torch.tensor(path, dtype=torch.long),
                    open=seen,
                    hidden=hidden,
                )
            )
        return cls(ends=after, blocks=tuple(blocks))

    @cached_property
    def keys(self) -> int:
        """The pairs of a query and a key that the blocks compute."""
        return sum((b.stop - b.start) * (len(b.path) + b.stop - b.start) for b in self.blocks)

    @cached_property
    def block_mask(self) -> Any:
        """FlexAttention's mask."""
        from torch.nn.attention.flex_attention import create_block_mask

        ends, count = self.ends, len(self.ends)

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < ends[key])

        return create_block_mask(sees, None, None, count, count, device=str(ends.device))

    def to(self, device: torch.device | str) -> "TreeLayout":
        return TreeLayout(
            ends=self.ends.to(device), blocks=tuple(block.to(device) for block in self.blocks)
        )


def _cuts(parents: Sequence[int]) -> list[tuple[int, int]]:
    """Blocks of rows, cut where a branch begins as soon as one has `MIN_ROWS`."""
    cuts = [0]
    for row in range(1, len(parents)):
        size, is_branch = row - cuts[-1], parents[row] != row - 1
        if size == MAX_ROWS or (is_branch and size >= MIN_ROWS):
            cuts.append(row)
    return list(zip(cuts, [*cuts[1:], len(parents)], strict=True))


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: TreeLayout,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of every row to its ancestors and itself.

    query: [1, heads, N, D]; key, value: [1, groups, N, D]; returns [1, N, heads, D], as
    transformers asks of an attention function.
    """
    assert attention_mask is None and dropout == 0, "the layout is the mask, dropout is nowhere"
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if device == "cuda":
        out = _flex()(
            query, key, value, block_mask=layout.block_mask, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None
    return BlockAttention.apply(query[0], key[0], value[0], layout, scaling)[None], None


@cache
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


class BlockAttention(Function):
    """Dense attention block by block: Q * (A + Q) products a block, where one mask costs N * N.

    query: [heads, N, D]; key, value: [groups, N, D]; returns [N, heads, D]. Plain products are
    twice as fast as the fused CPU kernel, whose backward is slow in bf16.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scaling: float
    ) -> Tensor:
        out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        by_head = out.transpose(0, 1)
        keeps = layout.keys * len(query) <= KEPT_WEIGHTS
        kept = []
        for block in layout.blocks:
            weights = _weights(query, key, block, scaling)
            _rows(by_head, block).copy_(_apart(weights @ _keys(value, block), query, block))
            if keeps:
                kept.append(weights)
        ctx.save_for_backward(query, key, value, out, *kept)
        ctx.layout, ctx.scaling = layout, scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        query, key, value, out, *kept = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        # Rows near the root gather from every block below them.
        dtype = torch.promote_types(key.dtype, torch.float32)
        grad_key = torch.zeros(key.shape, dtype=dtype, device=key.device)
        grad_value = torch.zeros_like(grad_key)
        of_out = (grad * out).sum(dim=-1, keepdim=True).transpose(0, 1)
        grad = grad.transpose(0, 1)
        for i, block in enumerate(ctx.layout.blocks):
            weights = kept[i] if kept else _weights(query, key, block, ctx.scaling)
            own = _together(grad, key, block)
            _add_keys(grad_value, block, weights.transpose(1, 2) @ own)
            products = own @ _keys(value, block).transpose(1, 2)
            # The softmax's backward.
            products.sub_(_together(of_out, key, block)).mul_(weights).mul_(ctx.scaling)
            _rows(grad_query, block).copy_(_apart(products @ _keys(key, block), query, block))
            queries = _together(query, key, block)
            _add_keys(grad_key, block, products.transpose(1, 2) @ queries)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def _weights(query: Tensor, key: Tensor, block: Block, scaling: float) -> Tensor:
    """[groups, heads / groups * Q, A + Q] attention weights of a block."""
    scores = _together(query, key, block).mul(scaling) @ _keys(key, block).transpose(1, 2)
    by_head = scores.view(len(query), block.stop - block.start, -1)
    by_head[:, :, block.open :].masked_fill_(block.hidden, -torch.inf)
    return scores.softmax(dim=-1)


def _together(query: Tensor, key: Tensor, block: Block) -> Tensor:
    """The rows of a block, the heads that share a key head below each other."""
    return _rows(query, block).reshape(len(key), -1, query.shape[-1])


def _apart(rows: Tensor, query: Tensor, block: Block) -> Tensor:
    return rows.view(len(query), block.stop - block.start, -1)


def _rows(query: Tensor, block: Block) -> Tensor:
    return query[:, block.start : block.stop]


def _keys(key: Tensor, block: Block) -> Tensor:
    """[groups, A + Q, D]."""
    return torch.cat([key.index_select(1, block.path), key[:, block.start : block.stop]], dim=1)


def _add_keys(total: Tensor, block: Block, grad: Tensor) -> None:
    above = len(block.path)
    total.index_add_(1, block.path, grad[:, :above].to(total.dtype))
    total[:, block.start : block.stop] += grad[:, above:]


AttentionInterface.register(NAME, tree_attention)
