"""A model's norms and gates as single functions that keep only what their backward needs.

Transformers writes them as chains of operations, each of which keeps its input: for the norms alone
that is a tenth of the memory of a training run on a CPU, and of its time some percent. What a norm
gives and what a gate lets through are as large as what they are made of, and one product an element
to make again.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu


def fuse(model: Any) -> None:
    """Put the functions below in place in a `LlamaForCausalLM` or `Qwen2ForCausalLM`.

    Where the head is the embedding, the gradient of the latter comes as its rows alone, to be added
    to the head's; by itself it would be as large as the vocabulary, and nearly all zero.
    """
    embedding = model.get_input_embeddings()
    embedding.sparse = embedding.weight is model.lm_head.weight
    norms = [model.model.norm]
    for layer in model.model.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        attention, mlp = layer.self_attn, layer.mlp
        mlp.forward = MethodType(_gated, mlp)
        of_normed = attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj
        for projection in of_normed:
            projection.forward = MethodType(_projected, projection)
    for norm in norms:
        norm.forward = MethodType(_normed, norm)


def _normed(norm: Any, x: Tensor) -> Tensor:
    normed, scale = RMSNorm.apply(x, norm.weight, norm.variance_epsilon)
    normed.made_of = (x, norm.weight, scale, MadeOnce())
    return normed


def _projected(projection: Any, x: Tensor) -> Tensor:
    weight, bias = projection.weight, projection.bias
    made_of = getattr(x, "made_of", None)
    if made_of is None or not weight.requires_grad:  # as below an adapter: nothing is kept for it
        return linear(x, weight, bias)
    return NormedLinear.apply(x, weight, bias, *made_of)


def _gated(mlp: Any, x: Tensor) -> Tensor:
    gate, up, down = mlp.gate_proj(x), mlp.up_proj(x), mlp.down_proj
    if type(down) is nn.Linear and down.bias is None:
        return GatedLinear.apply(gate, up, down.weight)
    return down(SwiGLU.apply(gate, up))  # an adapter's layer has more to it than a weight


class RMSNorm(Function):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last dimension (arXiv 1910.07467).

    Computed in at least fp32 whatever the dtype; keeps x and one number a row, the second that it
    returns: [..., 1], what x is multiplied by.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
        scale = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        ctx.mark_non_differentiable(scale)
        return _scaled(x, weight, scale), scale

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor, _: None
    ) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        product = grad * normed
        grad_weight = product.flatten(0, -2).sum(dim=0).to(weight.dtype)
        # Along x the scale takes back what x gains.
        along = product.mul_(weight).mean(dim=-1, keepdim=True)
        grad_x = (grad * weight.to(normed.dtype)).sub_(normed.mul_(along)).mul_(scale)
        return grad_x.to(x.dtype), grad_weight, None


def _scaled(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return weight * (x * scale).to(x.dtype)


class MadeOnce:
    """A norm's output in the backward: made for the first that asks, kept until the last has it."""

    def __init__(self) -> None:
        self.users = 0
        self.normed: Tensor | None = None

    def of(self, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        normed = _scaled(x, weight, scale) if self.normed is None else self.normed
        self.users -= 1
        self.normed = normed if self.users > 0 else None
        return normed


class NormedLinear(Function):
    """normed @ weight.T + bias; keeps what `normed` is made of, and makes it again.

    normed: [..., H], what `RMSNorm` gave for (x, norm_weight) with scale; weight: [F, H]; bias: [F]
    or None; returns [..., F], in the dtype that autocast gives products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        normed: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        x: Tensor,
        norm_weight: Tensor,
        scale: Tensor,
        once: MadeOnce,
    ) -> Tensor:
        ctx.save_for_backward(weight, x, norm_weight, scale)
        ctx.once, ctx.bias_dtype = once, None if bias is None else bias.dtype
        once.users += 1
        return linear(normed, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        weight, *made_of = ctx.saved_tensors
        normed = ctx.once.of(*made_of)
        rows = grad.flatten(0, -2)
        grad_weight = (rows.T @ normed.flatten(0, -2).to(grad.dtype)).to(weight.dtype)
        grad_bias = None if ctx.bias_dtype is None else rows.sum(dim=0).to(ctx.bias_dtype)
        grad_normed = (grad @ weight.to(grad.dtype)).to(normed.dtype)
        return grad_normed, grad_weight, grad_bias, None, None, None, None


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


class GatedLinear(Function):
    """(silu(gate) * up) @ weight.T; keeps gate and up, and computes their product again.

    gate, up: [..., F]; weight: [H, F]; returns [..., H], in the dtype that autocast gives products.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return linear(silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        through = silu(gate)
        grad_product = grad @ weight.to(grad.dtype)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            product = (through * up).flatten(0, -2).to(grad.dtype)
            grad_weight = (grad.flatten(0, -2).T @ product).to(weight.dtype)
        grad_gate = torch.ops.aten.silu_backward(grad_product * up, gate)
        return grad_gate, through.mul_(grad_product), grad_weight
