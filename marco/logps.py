"""Log-probabilities of chains under a causal language model, from one packed forward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from marco.training.tree_batch import TreeBatch

# Rows and tokens of the vocabulary whose logits exist at once. They bound memory only: such a tile
# is 16 MB in fp32.
TILE = (1024, 4096)


def chain_logps(
    model: Any,
    batch: TreeBatch,
    *,
    head_leaf: Tensor | None = None,
    tile: tuple[int, int] = TILE,
) -> Tensor:
    """The log-probability of every completion token that a batch asks for, in nats.

    model: a `LlamaForCausalLM` or `Qwen2ForCausalLM` with `attn_implementation="marco_tree"`;
    returns [chains, T] in at least fp32, 0 where `batch.chain_mask` is False. The gradient of the
    head's weight goes to the leaf `head_leaf`, where that is given, in its dtype.
    """
    hidden = model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        layout=batch.layout,
        use_cache=False,
    ).last_hidden_state[0]
    logps = TargetLogps.apply(
        hidden.index_select(0, batch.head_rows),
        model.lm_head.weight,
        head_leaf,
        batch.target_head_rows,
        batch.target_ids,
        tile,
    )
    return torch.cat([logps, logps.new_zeros(1)])[batch.chain_targets]


class TargetLogps(Function):
    """The log-probability of token `ids[m]` after the hidden state of row `rows[m]`.

    hidden: [R, H]; weight: [V, H] of the LM head; rows (sorted), ids: [M]. Logits exist for a tile
    of `tile` rows and tokens at a time, and the backward computes them again, so neither [R, V] nor
    a row of it is ever held. leaf: [V, H] or None; it takes the weight's gradient in its own
    dtype, which spares copies as large as the vocabulary. Its values are not read.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        leaf: Tensor | None,
        rows: Tensor,
        ids: Tensor,
        tile: tuple[int, int],
    ) -> Tensor:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logps = torch.zeros(len(ids), dtype=dtype, device=hidden.device)
        totals = torch.empty(len(hidden), dtype=dtype, device=hidden.device)
        for chunk, targets in _chunks(len(hidden), rows, tile[0]):
            own, sums = rows[targets] - chunk.start, []
            for some in _slices(len(weight), tile[1]):
                logits = (hidden[chunk] @ weight[some].T).to(dtype)
                sums.append(logits.logsumexp(dim=-1))
                column, is_here = _columns(ids[targets], some)
                logps[targets] += torch.where(is_here, logits[own, column], 0)
            totals[chunk] = torch.stack(sums).logsumexp(dim=0)
            logps[targets] -= totals[chunk][own]
        ctx.save_for_backward(hidden, weight, rows, ids, totals)
        ctx.tile, ctx.leaf = tile, leaf
        return logps

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, rows, ids, totals = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), None
        held = None if ctx.leaf is None else ctx.leaf.grad
        if held is not None:  # of a micro-batch before: added to in place
            grad_weight = held
        elif any(ctx.needs_input_grad[1:3]):
            grad_weight = torch.zeros_like(
                weight, dtype=(weight if ctx.leaf is None else ctx.leaf).dtype
            )
        for chunk, targets in _chunks(len(hidden), rows, ctx.tile[0]):
            own = rows[targets] - chunk.start
            row_grad = grad.new_zeros(chunk.stop - chunk.start).index_add_(0, own, grad[targets])
            grad_rows = torch.zeros_like(hidden[chunk], dtype=grad.dtype)
            for some in _slices(len(weight), ctx.tile[1]):
                # d logp / d logits is 1 at the target, minus the probabilities.
                logits = (hidden[chunk] @ weight[some].T).to(grad.dtype)
                grad_logits = logits.sub_(totals[chunk, None]).exp_().mul_(-row_grad[:, None])
                column, is_here = _columns(ids[targets], some)
                grad_logits.index_put_((own, column), grad[targets] * is_here, accumulate=True)
                grad_logits = grad_logits.to(weight.dtype)
                grad_rows += grad_logits @ weight[some]
                if grad_weight is None:
                    continue
                if grad_weight.dtype == weight.dtype:
                    grad_weight[some].addmm_(grad_logits.T, hidden[chunk])
                else:
                    grad_weight[some] += grad_logits.T @ hidden[chunk]
            grad_hidden[chunk] = grad_rows
        if held is not None:
            return grad_hidden, None, None, None, None, None
        of_weights = (grad_weight, None) if ctx.leaf is None else (None, grad_weight)
        return grad_hidden, *of_weights, None, None, None


def _chunks(count: int, rows: Tensor, size: int) -> list[tuple[slice, slice]]:
    """Slices of `size` of `count` head rows, each with the slice of the targets on them."""
    chunks = _slices(count, size)
    starts = [chunk.start for chunk in chunks]
    edges = torch.searchsorted(rows, torch.tensor([*starts, count], device=rows.device)).tolist()
    return [(chunk, slice(*edges[i : i + 2])) for i, chunk in enumerate(chunks)]


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _columns(ids: Tensor, some: slice) -> tuple[Tensor, Tensor]:
    """The column of each token in a tile, and whether it has one there; else it is any."""
    is_here = (ids >= some.start) & (ids < some.stop)
    return (ids - some.start).clamp(0, some.stop - some.start - 1), is_here
