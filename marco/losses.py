"""The losses of the method, pure functions of per-token log-probabilities.

Symbols follow arXiv 2503.01461: y_w is the chosen chain, y_l the rejected one, h the margin of
their log-ratios between the student and its reference. Knobs are keyword-only and have no defaults:
the numbers stand in `conf/loss/`. Natural logarithms throughout.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def log_ratio(logps: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """log pi(y|x) - log pi_ref(y|x), summed over the unmasked tokens.

    logps, reference: [chains, T] per token; mask: [chains, T] bool; returns [chains], in nats.
    """
    return torch.where(mask, logps - reference, 0.0).sum(dim=-1)


def dpo(h: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid(beta h), equation 7 of DPO (arXiv 2305.18290): [pairs] -> [pairs], in nats."""
    return -F.logsigmoid(beta * h)


def cdpo(h: Tensor, *, beta: float, epsilon: float) -> Tensor:
    """DPO that takes a share epsilon of the labels to be swapped: [pairs] -> [pairs], in nats.

    -(1-epsilon) log sigmoid(beta h) - epsilon log sigmoid(-beta h); its minimum is where
    beta h = log((1-epsilon)/epsilon), so the margin stays bounded. 0 <= epsilon < 0.5.
    """
    return -(1 - epsilon) * F.logsigmoid(beta * h) - epsilon * F.logsigmoid(-beta * h)


PREFERENCE_LOSSES: dict[str, Callable[..., Tensor]] = {"dpo": dpo, "cdpo": cdpo}


def sft(logps: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood per unmasked token, in nats.

    logps: [chains, T]; mask: [chains, T] bool; returns a scalar, 0 (with a gradient of 0) when
    every token is masked.
    """
    return -torch.where(mask, logps, 0.0).sum() / mask.sum().clamp(min=1)


def shared_prefix_mask(
    chosen_ids: Tensor, rejected_ids: Tensor, chosen_mask: Tensor, rejected_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The two masks without the tokens of the pair's common prefix ("as padding does", section 3).

    ids: [pairs, T] token ids; masks: [pairs, T] bool, True on completion tokens; returns the masks.
    """
    same = (chosen_ids == rejected_ids) & chosen_mask & rejected_mask
    prefix = same.long().cumprod(dim=-1).bool()
    return chosen_mask & ~prefix, rejected_mask & ~prefix


def joint(preference: Tensor, sft: Tensor, *, alpha: float) -> Tensor:
    """L = L_preference + alpha L_SFT(chosen), scalars (section 3, joint loss)."""
    return preference + alpha * sft
