"""The losses against hand arithmetic, limiting cases, and what their registry says of them."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marco.losses import (
    PREFERENCE_LOSSES,
    PairLogps,
    conservative,
    dpo,
    joint,
    ld_dpo,
    orpo,
    robust,
    sft,
)
from marco.training.config import LossConfig

LOSSES = Path(__file__).parents[1] / "conf" / "loss"
YES, NO = True, False
every_loss = pytest.mark.parametrize("name", PREFERENCE_LOSSES)


def pair(**rows: list[float]) -> PairLogps:
    """One pair in float64.

    Chosen: log-ratio (-1 + 1.5) + (-2 + 2.5) = 1, mean -1.5, 2 tokens.
    Rejected: log-ratio (-1 + 1) + (-4 + 2) + (-1 + 2) = -1, mean -2, 3 tokens.
    """
    values = {
        "chosen": [-1.0, -2.0, -9.0],
        "rejected": [-1.0, -4.0, -1.0],
        "chosen_reference": [-1.5, -2.5, -7.0],
        "rejected_reference": [-1.0, -2.0, -2.0],
        "chosen_weights": [1.0, 1.0, 0.0],
        "rejected_weights": [1.0, 1.0, 1.0],
    }
    tensors = {k: torch.tensor([v], dtype=torch.float64) for k, v in (values | rows).items()}
    lengths = {"chosen_lengths": torch.tensor([2]), "rejected_lengths": torch.tensor([3])}
    return PairLogps(**tensors, **lengths)


def margin(*h: float) -> PairLogps:
    """Pairs of single tokens with these margins."""
    chosen, zeros = torch.tensor(h, dtype=torch.float64)[:, None], torch.zeros(len(h), 1).double()
    ones, lengths = torch.ones_like(zeros), torch.ones(len(h), dtype=torch.long)
    return PairLogps(
        chosen=chosen,
        rejected=zeros,
        chosen_reference=zeros,
        rejected_reference=zeros,
        chosen_weights=ones,
        rejected_weights=ones,
        chosen_lengths=lengths,
        rejected_lengths=lengths,
    )


@cache
def shipped(name: str) -> LossConfig:
    return LossConfig.model_validate(yaml.safe_load((LOSSES / f"{name}.yaml").read_text("utf-8")))


def loss_of(name: str, pairs: PairLogps) -> Tensor:
    """With the knobs of the file of that name."""
    preference = shipped(name).preference
    assert preference is not None
    return PREFERENCE_LOSSES[name].function(pairs, **preference.knobs)


@every_loss
def test_every_loss_has_a_file_of_its_name(name: str):
    preference = shipped(name).preference
    assert preference is not None and preference.name == name


def test_margin_by_hand():
    pairs = pair()
    assert pairs.chosen_log_ratio.tolist() == [1.0]
    assert pairs.rejected_log_ratio.tolist() == [-1.0]
    assert pairs.h.tolist() == [2.0]
    assert (pairs.chosen_mean.tolist(), pairs.rejected_mean.tolist()) == ([-1.5], [-2.0])


def test_weights_by_hand():
    pairs = pair(chosen_weights=[1.0, 0.5, 0.0], rejected_weights=[0.0, 0.5, 2.0])
    assert pairs.chosen_log_ratio.tolist() == [0.5 + 0.5 * 0.5]
    assert pairs.rejected_log_ratio.tolist() == [0.5 * -2 + 2 * 1]
    assert pairs.chosen_mean.tolist() == [(-1 + 0.5 * -2) / 1.5]
    assert pairs.rejected_mean.tolist() == [(0.5 * -4 + 2 * -1) / 2.5]


BELOW_THE_REFERENCE = {"chosen_reference": [0.0, -1.0, 0.0]}
# Name, knobs, what differs from `pair()`, loss; log(1 + e^-x) is -log sigma(x).
HAND: list[tuple[str, dict[str, float], dict[str, list[float]], float]] = [
    ("dpo", {"beta": 0.5}, {}, math.log(1 + math.exp(-1))),
    (
        "conservative",
        {"beta": 0.5, "epsilon": 0.1},
        {},
        0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1)),
    ),
    (
        "robust",
        {"beta": 0.5, "epsilon": 0.1},
        {},
        (0.9 * math.log(1 + math.exp(-1)) - 0.1 * math.log(1 + math.exp(1))) / 0.8,
    ),
    ("ipo", {"tau": 0.1}, {}, (2 - 5) ** 2),
    # The mean log-ratios are 1/2 and -1/3.
    ("ipo_mean", {"tau": 0.5}, {}, (1 / 2 + 1 / 3 - 1) ** 2),
    ("hinge", {"beta": 0.25}, {}, 0.5),
    ("hinge", {"beta": 0.75}, {}, 0.0),
    ("simpo", {"beta": 2.0, "gamma": 0.25}, {}, math.log(1 + math.exp(-(2 * 0.5 - 0.25)))),
    # Odds of e^-1.5 = 0.22313 are 0.28721, those of e^-2 = 0.13534 are 0.15652.
    ("orpo", {"lambda_": 0.1}, {}, 0.1 * math.log(1 + 0.15651764 / 0.28721690)),
    # The third token of the rejected chain counts half: its log-ratio is 0 - 2 + 1/2.
    ("ld_dpo", {"beta": 0.4, "tail_weight": 0.5}, {}, math.log(1 + math.exp(-0.4 * 2.5))),
    ("dpop", {"beta": 0.5, "lambda_": 4.0}, {}, math.log(1 + math.exp(-1))),
    # The chosen log-ratio is (-1 - 0) + (-2 + 1) = -2, so h is -2 + 1 and the penalty 4 * 2.
    (
        "dpop",
        {"beta": 0.5, "lambda_": 4.0},
        BELOW_THE_REFERENCE,
        math.log(1 + math.exp(0.5 * (1 + 8))),
    ),
    ("rpo", {"beta": 0.5, "sft_weight": 2.0}, {}, math.log(1 + math.exp(-1)) + 2 * 1.5),
    # The chosen chain is shorter by one token.
    (
        "length_regularised",
        {"beta": 0.5, "length_weight": 0.25},
        {},
        math.log(1 + math.exp(-(1 - 0.25))),
    ),
]


@pytest.mark.parametrize(("name", "knobs", "rows", "expected"), HAND)
def test_loss_by_hand(
    name: str, knobs: dict[str, float], rows: dict[str, list[float]], expected: float
):
    loss = PREFERENCE_LOSSES[name].function(pair(**rows), **knobs)
    assert loss.tolist() == pytest.approx([expected], rel=1e-7)


@every_loss
def test_every_loss_is_computed_by_hand(name: str):
    assert name in {case[0] for case in HAND}


LN_2 = math.log(2)
# With the knobs of the files, where the student is its reference and both chains have two tokens.
AT_THE_REFERENCE = {
    "dpo": LN_2,
    "conservative": LN_2,
    "robust": LN_2,
    "ipo": 25.0,  # (1 / (2 * 0.1))^2
    "ipo_mean": 25.0,
    "hinge": 1.0,
    "ld_dpo": LN_2,
    "dpop": LN_2,
    "rpo": LN_2 + 1.5,  # the mean of 1 and 2
    "length_regularised": LN_2,
}


@every_loss
def test_losses_at_the_reference(name: str):
    if not PREFERENCE_LOSSES[name].uses_reference:
        assert name not in AT_THE_REFERENCE
        return
    rows = pair(chosen_reference=[-1.0, -2.0, -9.0], rejected_reference=[-1.0, -4.0, -1.0])
    pairs = replace(
        rows, rejected_weights=rows.chosen_weights, rejected_lengths=rows.chosen_lengths
    )
    assert loss_of(name, pairs).item() == pytest.approx(AT_THE_REFERENCE[name], rel=1e-12)


@every_loss
def test_the_reference_is_read_where_the_registry_says_so(name: str):
    other = pair(chosen_reference=[-3.0, -1.0, 0.0], rejected_reference=[0.0, -1.0, -5.0])
    changed = not torch.equal(loss_of(name, other), loss_of(name, pair()))
    assert changed == PREFERENCE_LOSSES[name].uses_reference


@given(h=st.floats(-1e4, 1e4), beta=st.floats(0.01, 2))
def test_noise_of_no_labels_is_dpo(h: float, beta: float):
    plain = dpo(margin(h), beta=beta)
    assert torch.equal(conservative(margin(h), beta=beta, epsilon=0.0), plain)
    assert torch.equal(robust(margin(h), beta=beta, epsilon=0.0), plain)


@given(h=st.floats(-50, 50), epsilon=st.floats(0, 0.45))
def test_robust_is_unbiased_under_swapped_labels(h: float, epsilon: float):
    true, swapped = robust(margin(h, -h), beta=0.5, epsilon=epsilon).tolist()
    expected = dpo(margin(h), beta=0.5).item()
    assert (1 - epsilon) * true + epsilon * swapped == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.4])
def test_conservative_is_least_at_its_stated_margin(epsilon: float):
    beta = 0.1
    best = math.log((1 - epsilon) / epsilon) / beta
    pairs = margin(best)
    pairs.chosen.requires_grad_()
    loss = conservative(pairs, beta=beta, epsilon=epsilon)
    loss.backward()
    assert pairs.chosen.grad is not None
    assert pairs.chosen.grad.item() == pytest.approx(0.0, abs=1e-12)
    for other in (best - 0.5, best + 0.5):
        assert conservative(margin(other), beta=beta, epsilon=epsilon) > loss
    # There it is the entropy of a coin with probability epsilon.
    entropy = -epsilon * math.log(epsilon) - (1 - epsilon) * math.log(1 - epsilon)
    assert loss.item() == pytest.approx(entropy)


def test_ld_dpo_at_full_weight_is_dpo():
    full = ld_dpo(pair(), beta=0.1, tail_weight=1.0)
    assert torch.equal(full, dpo(pair(), beta=0.1))


def test_ld_dpo_counts_positions_from_the_start_whatever_is_masked():
    masked = pair(chosen_weights=[0.0, 1.0, 0.0], rejected_weights=[0.0, 1.0, 1.0])
    # 1/2 of the chosen chain, -2 and half of 1 of the rejected one.
    loss = ld_dpo(masked, beta=0.5, tail_weight=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5 * (0.5 + 1.5))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logp", [0.0, -1e-30, -1e-9, -1e-3, -1e3])
def test_orpo_is_finite_at_extreme_probabilities(logp: float, dtype: torch.dtype):
    pairs = margin(logp)
    chosen = pairs.chosen.to(dtype).requires_grad_()
    rejected = torch.full_like(chosen, -0.7).requires_grad_()
    loss = orpo(replace(pairs, chosen=chosen, rejected=rejected), lambda_=1.0)
    loss.backward()
    assert loss.isfinite().all()
    assert chosen.grad is not None and chosen.grad.isfinite().all()


def test_orpo_keeps_its_digits_near_certainty():
    # The odds of p = 1 - 1e-12 are about 1e12; 1 - exp(log p) has four digits left there.
    pairs = margin(math.log1p(-1e-12))
    even = torch.full_like(pairs.chosen, math.log(0.5))
    loss = orpo(replace(pairs, rejected=even), lambda_=1.0)
    assert loss.item() == pytest.approx(1e-12, rel=1e-9, abs=0)


def random_pairs(
    seed: int, *, prefix: int, lengths: tuple[int, int]
) -> tuple[list[Tensor], PairLogps, PairLogps]:
    """Two pairs that share `prefix` tokens and go on for `lengths` more: leaves, whole, masked."""
    rng = torch.Generator().manual_seed(seed)

    def drawn(width: int) -> Tensor:
        return -5 * torch.rand(2, width, generator=rng, dtype=torch.float64)

    width = max(lengths)
    shared, *tails = (drawn(n).requires_grad_() for n in (prefix, width, width))
    shared_reference, *reference_tails = (drawn(n) for n in (prefix, width, width))
    counted = [(torch.arange(width) < n).double() * (1 + drawn(width) / 10) for n in lengths]
    shared_weights = 1 + drawn(prefix) / 10
    chosen, rejected = (torch.cat([shared, tail], 1) for tail in tails)
    chosen_ref, rejected_ref = (torch.cat([shared_reference, r], 1) for r in reference_tails)

    def pairs(weights: Tensor) -> PairLogps:
        return PairLogps(
            chosen=chosen,
            rejected=rejected,
            chosen_reference=chosen_ref,
            rejected_reference=rejected_ref,
            chosen_weights=torch.cat([weights, counted[0]], 1),
            rejected_weights=torch.cat([weights, counted[1]], 1),
            chosen_lengths=torch.full((2,), prefix + lengths[0]),
            rejected_lengths=torch.full((2,), prefix + lengths[1]),
        )

    return [shared, *tails], pairs(shared_weights), pairs(torch.zeros_like(shared_weights))


def values_and_gradients(name: str, leaves: list[Tensor], pairs: PairLogps) -> list[Tensor]:
    loss = loss_of(name, pairs)
    return [loss, *torch.autograd.grad(loss.sum(), leaves, retain_graph=True)]


@pytest.mark.parametrize(
    "name", [n for n, loss in PREFERENCE_LOSSES.items() if loss.prefix_cancels]
)
@given(
    seed=st.integers(0, 2**32),
    prefix=st.integers(0, 5),
    lengths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_masking_the_common_prefix_changes_nothing_where_it_cancels(
    name: str, seed: int, prefix: int, lengths: tuple[int, int]
):
    leaves, whole, masked = random_pairs(seed, prefix=prefix, lengths=lengths)
    theirs, ours = (values_and_gradients(name, leaves, pairs) for pairs in (whole, masked))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name", [n for n, loss in PREFERENCE_LOSSES.items() if not loss.prefix_cancels]
)
def test_masking_the_common_prefix_changes_the_other_losses(name: str):
    leaves, whole, masked = random_pairs(0, prefix=3, lengths=(2, 4))
    theirs, ours = (values_and_gradients(name, leaves, pairs) for pairs in (whole, masked))
    assert not torch.allclose(ours[0], theirs[0], atol=1e-3)


@every_loss
def test_masked_infinities_reach_no_loss_and_no_gradient(name: str):
    leaves, _, clean = random_pairs(1, prefix=2, lengths=(2, 4))
    rows = {}
    for side in ("chosen", "rejected"):
        masked = getattr(clean, f"{side}_weights") == 0
        for row in (side, f"{side}_reference"):
            rows[row] = torch.where(masked, -math.inf, getattr(clean, row).detach())
        rows[side].requires_grad_()
    dirty: Any = replace(clean, **rows)
    loss, *gradients = values_and_gradients(name, [dirty.chosen, dirty.rejected], dirty)
    assert torch.equal(loss, loss_of(name, clean))
    for side, gradient in zip(("chosen", "rejected"), gradients, strict=True):
        assert gradient.isfinite().all()
        assert not gradient[getattr(clean, f"{side}_weights") == 0].any()


@every_loss
def test_a_pair_that_is_masked_whole_has_no_gradient(name: str):
    pairs = pair(chosen_weights=[0.0] * 3, rejected_weights=[0.0] * 3)
    leaves = [pairs.chosen.requires_grad_(), pairs.rejected.requires_grad_()]
    loss, *gradients = values_and_gradients(name, leaves, pairs)
    assert loss.isfinite().all()
    assert not any(gradient.any() for gradient in gradients)


@every_loss
def test_gradients_are_those_of_finite_differences(name: str):
    _, pairs, _ = random_pairs(2, prefix=1, lengths=(3, 2))

    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return loss_of(name, replace(pairs, chosen=chosen, rejected=rejected))

    rows = (pairs.chosen.detach().requires_grad_(), pairs.rejected.detach().requires_grad_())
    assert torch.autograd.gradcheck(loss, rows)


def test_sft_is_the_mean_over_unmasked_tokens():
    logps = torch.tensor([[-1.0, -2.0], [-6.0, -100.0]])
    assert sft(logps, torch.tensor([[YES, YES], [YES, NO]]), tokens=3).item() == 3.0


def test_sft_with_every_token_masked_is_zero_with_a_zero_gradient():
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    loss = sft(logps, torch.zeros(1, 2, dtype=torch.bool), tokens=0)
    loss.backward()
    assert loss.item() == 0.0
    assert logps.grad.tolist() == [[0.0, 0.0]]


def test_joint_by_hand():
    assert joint(torch.tensor(0.5), torch.tensor(2.0), alpha=1.5).item() == 3.5
