"""Log-probabilities of chains under a causal language model, from one packed forward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from marco.training.tree_batch import TreeBatch

# Rows of the LM head that are turned into logits at once. It bounds memory only: 256 rows of a
# vocabulary of 150,000 are 154 MB in fp32.
HEAD_ROWS = 256


def chain_logps(model: Any, batch: TreeBatch, *, head_rows: int = HEAD_ROWS) -> Tensor:
    """The log-probability of every completion token that a batch asks for, in nats.

    model: a `LlamaForCausalLM` or `Qwen2ForCausalLM` with `attn_implementation="marco_tree"`;
    returns [chains, T] in at least fp32, 0 where `batch.chain_mask` is False.
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
        batch.target_head_rows,
        batch.target_ids,
        head_rows,
    )
    return torch.cat([logps, logps.new_zeros(1)])[batch.chain_targets]


class TargetLogps(Function):
    """The log-probability of token `ids[m]` after the hidden state of row `rows[m]`.

    hidden: [R, H]; weight: [V, H] of the LM head; rows (sorted), ids: [M]. Logits exist for
    `head_rows` rows at a time, and the backward computes them again, so [R, V] is never held.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, rows: Tensor, ids: Tensor, head_rows: int
    ) -> Tensor:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logps = torch.empty(len(ids), dtype=dtype, device=hidden.device)
        totals = torch.empty(len(hidden), dtype=dtype, device=hidden.device)
        for chunk, targets in _chunks(len(hidden), rows, head_rows):
            logits = (hidden[chunk] @ weight.T).to(dtype)
            own = rows[targets] - chunk.start
            totals[chunk] = logits.logsumexp(dim=-1)
            logps[targets] = logits[own, ids[targets]] - totals[chunk][own]
        ctx.save_for_backward(hidden, weight, rows, ids, totals)
        ctx.head_rows = head_rows
        return logps

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, rows, ids, totals = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for chunk, targets in _chunks(len(hidden), rows, ctx.head_rows):
            own = rows[targets] - chunk.start
            row_grad = grad.new_zeros(chunk.stop - chunk.start).index_add_(0, own, grad[targets])
            # d logp / d logits is 1 at the target, minus the probabilities.
            logits = (hidden[chunk] @ weight.T).to(grad.dtype)
            grad_logits = logits.sub_(totals[chunk, None]).exp_().mul_(-row_grad[:, None])
            grad_logits.index_put_((own, ids[targets]), grad[targets], accumulate=True)
            grad_logits = grad_logits.to(weight.dtype)
            grad_hidden[chunk] = grad_logits @ weight
            grad_weight.addmm_(grad_logits.T, hidden[chunk])
        return grad_hidden, grad_weight, None, None, None


def _chunks(count: int, rows: Tensor, size: int) -> list[tuple[slice, slice]]:
    """Slices of `size` of `count` head rows, each with the slice of the targets on them."""
    starts = list(range(0, count, size))
    edges = torch.searchsorted(rows, torch.tensor([*starts, count], device=rows.device)).tolist()
    return [
        (slice(start, min(start + size, count)), slice(edges[i], edges[i + 1]))
        for i, start in enumerate(starts)
    ]
