"""fp32 weights behind a bf16 model: bit by bit, and beside copies in fp32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from marco.training import master_weights
from marco.training.master_weights import MasterWeights, clip_scale, join, split


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
    for value in (256.0, 1.0, 1.0, 1.0):
        layer(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    # In bf16, 256 + 1 is 256.
    assert masters.norm() == 259  # and asking changes nothing
    assert [gradient.item() for gradient in masters.gradients()] == [259.0]


def test_an_embedding_gives_its_rows():
    rows = nn.Embedding(3, 1, sparse=True, dtype=torch.bfloat16)
    masters = MasterWeights(rows.parameters())
    for _ in range(2):  # the first finds no gradient there, the second adds to it
        (256 * rows(torch.tensor([2, 0, 2])).sum()).backward()
        rows(torch.tensor([2])).sum().backward()
    assert masters.gradients()[0].flatten().tolist() == [512.0, 0.0, 1026.0]


def test_an_embedding_sums_a_token_that_comes_often_in_fp32():
    rows = nn.Embedding(2, 1, sparse=True, dtype=torch.bfloat16)
    masters = MasterWeights(rows.parameters())
    rows(torch.tensor([1] * 300)).sum().backward()  # in bf16, 256 + 1 is 256
    assert masters.gradients()[0].flatten().tolist() == [0.0, 300.0]


def test_lots_hold_every_row_once_and_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(master_weights.AT_ONCE, "cpu", 16)
    parameters = [nn.Parameter(torch.zeros(*shape)) for shape in [(3,), (5, 4), (2, 20), (1,)]]
    lots = MasterWeights(parameters)._lots
    taken = [(i, row) for lot in lots for i, rows, _ in lot for row in range(*rows.indices(99))]
    assert taken == [(i, row) for i, each in enumerate(parameters) for row in range(len(each))]
    # 3 and 3 rows of 4 (13 left of 16); 2 rows of 4, and 8 are too few for one of 20; and so on.
    sizes = [sum(master.numel() for _, _, master in lot) for lot in lots]
    assert sizes == [15, 8, 20, 20, 1]


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_steps_are_bitwise_those_of_copies_in_fp32(
    micro_batches: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(master_weights.AT_ONCE, "cpu", 16)
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
            gradients = torch.autograd.grad(net(data).square().sum(), list(net.parameters()))
            for copy, gradient in zip(copies, gradients, strict=True):
                copy.grad += gradient
            net(data).square().sum().backward()
        norm = masters.norm()
        torch.testing.assert_close(norm, torch.nn.utils.get_total_norm([c.grad for c in copies]))
        scale = clip_scale(norm, most=0.5)
        assert scale < 1
        masters.step(of_masters, scale=scale)
        for copy in copies:
            copy.grad *= scale
        of_copies.step()
        for i, copy in enumerate(copies):
            whole = torch.empty_like(copy)
            join(masters.model_parameters[i].detach(), masters.residuals[i], out=whole)
            assert torch.equal(whole, copy)
    masters.give_to_model()
    for own, copy in zip(net.parameters(), copies, strict=True):
        assert torch.equal(own, copy)
