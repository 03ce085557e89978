"""fp32 weights behind a bf16 model: bit by bit, and beside copies in fp32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from marco.training import master_weights
from marco.training.master_weights import MasterWeights, join, split


def halves(whole: Tensor) -> tuple[Tensor, Tensor]:
    rounded, residual = whole.bfloat16(), torch.empty_like(whole, dtype=torch.int16)
    split(whole.clone(), rounded, residual)
    return rounded, residual


@given(bits=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_a_weight_is_its_rounded_half_and_the_bits_between(bits: list[int]):
    whole = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    whole = whole[whole.isfinite()]
    rounded, residual = halves(whole)
    back = torch.empty_like(whole)
    join(rounded, residual, out=back)
    assert torch.equal(back.view(torch.int32), whole.view(torch.int32))
    # Rounded as torch does but in a tie, which torch takes to the even one.
    is_tie = residual == -(2**15)
    assert torch.equal(rounded[~is_tie], whole.bfloat16()[~is_tie])


@pytest.mark.parametrize(
    ("whole", "rounded", "residual"),
    [
        (1.0, 1.0, 0),
        (1 + 2**-9, 1.0, 2**14),
        (1 + 2**-8, 1 + 2**-7, -(2**15)),  # a tie
        (-(1 + 2**-8), -(1 + 2**-7), -(2**15)),
        (1 - 2**-10, 1.0, -(2**14)),  # below 1 a step is half as large
        (-0.0, -0.0, 0),
    ],
)
def test_rounding_by_hand(whole: float, rounded: float, residual: int):
    a, b = halves(torch.tensor([whole]))
    assert (str(a.item()), b.item()) == (str(rounded), residual)


def test_updates_that_bf16_rounds_away_are_kept():
    layer = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(layer.weight)
    masters = MasterWeights(layer.parameters())
    optimizer = torch.optim.SGD(masters.masters, lr=1e-3)
    for _ in range(8):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        masters.step(optimizer)
    # Eight steps of 1e-3; near 1 from below bf16 has steps of 1/256, and one step alone is lost.
    assert layer.weight.item() == 1 - 2 / 256
    masters.give_to_model()
    assert layer.weight.dtype == torch.float32
    assert layer.weight.item() == pytest.approx(0.992, abs=1e-6)


def test_gradients_are_summed_in_fp32():
    layer = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    masters = MasterWeights(layer.parameters())
    for value in (256.0, 1.0):
        layer(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    # In bf16, 256 + 1 is 256.
    assert [gradient.item() for gradient in masters.gradients()] == [257.0]


def test_an_embedding_gives_its_rows():
    rows = nn.Embedding(3, 1, sparse=True, dtype=torch.bfloat16)
    masters = MasterWeights(rows.parameters())
    for _ in range(2):  # the first finds no gradient there, the second adds to it
        (256 * rows(torch.tensor([2, 0, 2])).sum()).backward()
        rows(torch.tensor([2])).sum().backward()
    assert masters.gradients()[0].flatten().tolist() == [512.0, 0.0, 1026.0]


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_steps_are_bitwise_those_of_copies_in_fp32(
    micro_batches: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(master_weights.BLOCK, "cpu", 16)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5), nn.Linear(5, 3)).bfloat16()
    copies = [nn.Parameter(p.detach().float()) for p in net.parameters()]
    masters = MasterWeights(net.parameters())
    knobs = {"lr": 1e-3, "weight_decay": 0.1, "fused": True}
    of_masters = torch.optim.AdamW(masters.masters, **knobs)
    of_copies = torch.optim.AdamW(copies, **knobs)
    for _ in range(5):
        for copy in copies:
            copy.grad = torch.zeros_like(copy)
        for _ in range(micro_batches):
            data = torch.randn(7, 8, dtype=torch.bfloat16)
            loss = net(data).square().sum()
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            for copy, gradient in zip(copies, gradients, strict=True):
                copy.grad += gradient
            net(data).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(copies, 0.5)
        torch.testing.assert_close(masters.clip_gradients(0.5), norm)
        # The norm is summed in another order; the step is compared under the same factor.
        for copy in copies:
            copy.grad *= masters._gradient_scale / (0.5 / (norm + 1e-6)).clamp(max=1.0)
        masters.step(of_masters)
        of_copies.step()
        assert all(master.grad is None for master in masters.masters)
        for own, copy in zip(net.parameters(), copies, strict=True):
            torch.testing.assert_close(own, copy.bfloat16(), rtol=0, atol=0)
    masters.give_to_model()
    for own, copy in zip(net.parameters(), copies, strict=True):
        torch.testing.assert_close(own, copy, rtol=1e-6, atol=0)
