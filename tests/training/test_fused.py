"""The fused functions against transformers' own modules, and against finite differences."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from marco.training.fused import RMSNorm, SwiGLU, fuse

from ..test_logps import SIZES


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-3), (x, weight))
    gate, up = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(SwiGLU.apply, (gate, up))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_gives_what_it_gave(kind: str, dtype: torch.dtype):
    torch.manual_seed(0)
    model: nn.Module = (
        LlamaForCausalLM(LlamaConfig(**SIZES))
        if kind == "llama"
        else Qwen2ForCausalLM(Qwen2Config(**SIZES))
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
        assert fused.dtype == plain.dtype
        assert (fused - plain).norm() <= tolerance * plain.norm() + 1e-6
