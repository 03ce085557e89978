"""The fused functions against transformers' own modules, and against finite differences."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from marco.training.fused import GatedLinear, RMSNorm, SwiGLU, fuse

from ..test_logps import SIZES


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-3), (x, weight))
    gate, up = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(SwiGLU.apply, (gate, up))
    down = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GatedLinear.apply, (gate, up, down))
    assert torch.autograd.gradcheck(GatedLinear.apply, (gate, up, down.detach()))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_gives_what_it_gave(kind: str, dtype: torch.dtype, tied: bool):
    torch.manual_seed(0)
    model: nn.Module = (
        LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
        if kind == "llama"
        else Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.to(dtype)
    ids = torch.randint(13, (2, 7))
    results = []
    for _ in range(2):
        loss = model(input_ids=ids, labels=ids).loss
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        fuse(model)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for plain, fused in zip(*results, strict=True):
        assert fused.dtype == plain.dtype and fused.layout == plain.layout
        assert (fused - plain).norm() <= tolerance * plain.norm() + 1e-6


def test_a_gate_keeps_what_it_is_made_of_alone():
    gate, up = (torch.randn(5, 8, requires_grad=True) for _ in range(2))
    down = nn.Linear(8, 4, bias=False)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        GatedLinear.apply(gate, up, down.weight)
    assert sorted(x.numel() for x in kept) == [32, 40, 40]


def test_under_autocast_gradients_have_the_dtypes_of_what_they_are_of():
    gate, up = (torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    weight = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = GatedLinear.apply(gate, up, weight)
        plain = nn.functional.linear(nn.functional.silu(gate) * up, weight)
    assert out.dtype == torch.bfloat16
    for one, other in zip(
        torch.autograd.grad(out.float().sum(), (gate, up, weight)),
        torch.autograd.grad(plain.float().sum(), (gate, up, weight)),
        strict=True,
    ):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= 0.02 * other.norm()
