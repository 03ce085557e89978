"""Attention of a packed row: each tree sees only itself and what it shares with earlier trees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "marco_tree"
"""Its name for `attn_implementation`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """Q adjacent rows of a packed row (the rows that one tree added), and what they may see.

    keys: [K] rows, their ancestors from earlier segments first, then the Q rows themselves; mask:
    [Q, K] bool, True where the key is an ancestor of the query, or the query itself.
    """

    keys: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "Segment":
        return Segment(keys=self.keys.to(device), mask=self.mask.to(device))


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Sequence[Segment],
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Dense attention segment by segment; query: [1, heads, N, D], key, value: [1, groups, N, D].

    The cost is the sum of Q * K over the segments, where one dense mask over the row costs N * N.
    Plain products are twice as fast here as the fused CPU kernel, whose backward is slow in bf16.
    Returns [1, N, heads, D], as transformers asks of an attention function.
    """
    assert attention_mask is None and dropout == 0, "masks are in the segments, dropout nowhere"
    heads, groups, size = query.shape[1], key.shape[1], query.shape[-1]
    rows = torch.cat([segment.keys for segment in segments])
    sizes = [len(segment.keys) for segment in segments]
    keys = key[0].index_select(1, rows).split(sizes, dim=1)
    values = value[0].index_select(1, rows).split(sizes, dim=1)
    queries = query[0].split([len(segment.mask) for segment in segments], dim=1)
    outputs = []
    for q, k, v, segment in zip(queries, keys, values, segments, strict=True):
        # Query heads that share a key head stand below each other: one product for all of them.
        bias = torch.zeros_like(segment.mask, dtype=q.dtype).masked_fill(~segment.mask, -torch.inf)
        bias = bias.repeat(heads // groups, 1).expand(groups, -1, -1)
        shared = q.reshape(groups, -1, size)
        weights = torch.baddbmm(bias, shared, k.transpose(1, 2), alpha=scaling).softmax(dim=-1)
        outputs.append((weights @ v).view(heads, -1, size))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None].contiguous(), None


AttentionInterface.register(NAME, tree_attention)
