"""Log-probabilities of chains under a causal language model, from one packed forward."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from marco.training.tree_batch import TreeBatch

# Rows of the LM head that are turned into logits at once. It bounds memory only: 256 rows of a
# vocabulary of 150,000 are 154 MB in fp32.
HEAD_ROWS = 256


def chain_logps(model: Any, batch: TreeBatch, *, head_rows: int = HEAD_ROWS) -> Tensor:
    """The log-probability of every completion token of every chain, in nats.

    model: a `LlamaForCausalLM` or `Qwen2ForCausalLM` with `attn_implementation="sdpa"`; returns
    [chains, T] in at least fp32, 0 where `batch.chain_mask` is False.
    """
    hidden = model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
    ).last_hidden_state[0]
    hidden = hidden.index_select(0, batch.head_rows)
    parts = []
    for start in range(0, hidden.shape[0], head_rows):
        stop = min(start + head_rows, hidden.shape[0])
        edges = torch.tensor([start, stop], device=hidden.device)
        low, high = torch.searchsorted(batch.target_head_rows, edges).tolist()
        rows = batch.target_head_rows[low:high] - start
        arguments = (model.lm_head, hidden[start:stop], rows, batch.target_ids[low:high])
        # Recomputing a chunk in the backward keeps only one chunk of logits alive at a time.
        parts.append(checkpoint(_target_logps, *arguments, use_reentrant=False))
    logps = torch.cat(parts)
    return torch.where(batch.chain_mask, logps[batch.chain_targets], 0.0)


def _target_logps(head: Any, hidden: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """hidden [R, H]; rows, ids [M]: the log-probability of token `ids[m]` after row `rows[m]`."""
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits[rows, ids] - logits.logsumexp(dim=-1)[rows]
