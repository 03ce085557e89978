"""A model's norms and gates as single functions that keep only what their backward needs.

Transformers writes them as chains of operations, each of which keeps its input: for the norms alone
that is a tenth of the memory of a training run on a CPU, and of its time some percent.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu


def fuse(model: Any) -> None:
    """Put the functions below in place in a `LlamaForCausalLM` or `Qwen2ForCausalLM`."""
    norms = [model.model.norm]
    for layer in model.model.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        layer.mlp.forward = MethodType(_gated, layer.mlp)
    for norm in norms:
        norm.forward = MethodType(_normed, norm)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _gated(mlp: Any, x: Tensor) -> Tensor:
    return mlp.down_proj(SwiGLU.apply(mlp.gate_proj(x), mlp.up_proj(x)))


class RMSNorm(Function):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension (arXiv 1910.07467).

    Computed in at least fp32 whatever the dtype; keeps x and one number a row.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return weight * (x * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        product = grad * normed
        grad_weight = product.flatten(0, -2).sum(dim=0).to(weight.dtype)
        # Along x the scale takes back what x gains.
        along = product.mul_(weight).mean(dim=-1, keepdim=True)
        grad_x = (grad * weight.to(normed.dtype)).sub_(normed.mul_(along)).mul_(scale)
        return grad_x.to(x.dtype), grad_weight, None


class SwiGLU(Function):
    """silu(gate) * up (arXiv 2002.05202); keeps its two inputs."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, silu(gate).mul_(grad)
