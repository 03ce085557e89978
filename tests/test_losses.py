"""The losses against hand arithmetic and limiting cases."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marco.losses import cdpo, dpo, joint, log_ratio, sft, shared_prefix_mask

YES, NO = True, False


def test_margin_by_hand():
    chosen = torch.tensor([[-1.0, -2.0, -9.0]])
    rejected = torch.tensor([[-1.0, -4.0, -0.5]])
    ref_chosen = torch.tensor([[-1.5, -2.5, -9.0]])
    ref_rejected = torch.tensor([[-1.0, -3.0, -0.5]])
    # Chosen: -3 + 4 = 1. Rejected: -5.5 + 4.5 = -1.
    h = log_ratio(chosen, ref_chosen, torch.tensor([[YES, YES, NO]]))
    h = h - log_ratio(rejected, ref_rejected, torch.tensor([[YES, YES, YES]]))
    assert h.tolist() == [2.0]


def test_masked_infinite_values_do_not_reach_the_margin_or_its_gradient():
    logps = torch.tensor([[-1.0, -math.inf]], requires_grad=True)
    zero, mask = torch.zeros(1, 2), torch.tensor([[YES, NO]])
    h = log_ratio(logps, zero, mask)
    h.sum().backward()
    assert h.item() == -1.0
    assert logps.grad.tolist() == [[1.0, 0.0]]


def test_losses_at_no_margin_are_ln_2():
    h = torch.zeros(3, dtype=torch.float64)
    assert dpo(h, beta=0.1).tolist() == pytest.approx([math.log(2)] * 3)
    assert cdpo(h, beta=0.1, epsilon=0.3).tolist() == pytest.approx([math.log(2)] * 3)


def test_dpo_by_hand():
    h = torch.tensor([2.0], dtype=torch.float64)
    assert dpo(h, beta=0.5).item() == pytest.approx(math.log(1 + math.exp(-1)))


@given(h=st.floats(-1e4, 1e4), beta=st.floats(0.01, 2))
def test_cdpo_without_wrong_labels_is_dpo(h: float, beta: float):
    margin = torch.tensor([h], dtype=torch.float64)
    assert torch.equal(cdpo(margin, beta=beta, epsilon=0.0), dpo(margin, beta=beta))


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.4])
def test_cdpo_is_least_at_its_stated_margin(epsilon: float):
    beta = 0.1
    best = math.log((1 - epsilon) / epsilon) / beta
    h = torch.tensor([best], dtype=torch.float64, requires_grad=True)
    loss = cdpo(h, beta=beta, epsilon=epsilon)
    loss.backward()
    assert h.grad.item() == pytest.approx(0.0, abs=1e-12)
    for other in (best - 0.5, best + 0.5):
        assert cdpo(torch.tensor([other]), beta=beta, epsilon=epsilon) > loss
    # There it is the entropy of a coin with probability epsilon.
    entropy = -epsilon * math.log(epsilon) - (1 - epsilon) * math.log(1 - epsilon)
    assert loss.item() == pytest.approx(entropy)


def test_sft_is_the_mean_over_unmasked_tokens():
    logps = torch.tensor([[-1.0, -2.0], [-6.0, -100.0]])
    assert sft(logps, torch.tensor([[YES, YES], [YES, NO]])).item() == 3.0


def test_sft_with_every_token_masked_is_zero_with_a_zero_gradient():
    logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    loss = sft(logps, torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert logps.grad.tolist() == [[0.0, 0.0]]


def test_shared_prefix_by_hand():
    chosen = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    rejected = torch.tensor([[5, 9, 7, 8], [5, 6, 7, 0]])
    masks = shared_prefix_mask(
        chosen,
        rejected,
        torch.tensor([[YES, YES, YES, YES], [YES, YES, NO, NO]]),
        torch.tensor([[YES, YES, YES, YES], [YES, YES, YES, NO]]),
    )
    # Equal tokens after the first difference count again; a chain that ends is no longer shared.
    assert masks[0].tolist() == [[NO, YES, YES, YES], [NO, NO, NO, NO]]
    assert masks[1].tolist() == [[NO, YES, YES, YES], [NO, NO, YES, NO]]


def test_equal_chains_are_masked_whole():
    ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[YES, YES, YES]])
    assert not torch.stack(shared_prefix_mask(ids, ids, mask, mask)).any()


def test_joint_by_hand():
    assert joint(torch.tensor(0.5), torch.tensor(2.0), alpha=1.5).item() == 3.5
