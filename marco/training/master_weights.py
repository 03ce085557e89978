"""Full-precision weights behind a bf16 model, so that small updates are not lost."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# Weights whose fp32 values exist at once, in an optimiser's step. On a CPU a block is what its
# cache holds, and no larger than the holes that a backward leaves; on a GPU it costs launches.
BLOCK = {"cpu": 2**20, "cuda": 2**26}


class MasterWeights:
    """fp32 weights whose upper halves are a bf16 model's own, for the optimiser.

    A bf16 weight changes only by steps of 1/256 of itself, and AdamW at a learning rate of 2e-5
    asks for less. `residuals` hold the 16 bits that the model rounds away. `masters` are what the
    optimiser takes, the parameters in blocks of rows; they have values during `step` alone.
    Gradients are summed over micro-batches in fp32; those of an embedding may come as its rows.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.model_parameters = [p for p in parameters if p.requires_grad]
        self.residuals = [torch.zeros_like(p, dtype=torch.int16) for p in self.model_parameters]
        self._blocks = [
            (i, rows, _without_values(parameter[rows]))
            for i, parameter in enumerate(self.model_parameters)
            for rows in _rows(parameter)
        ]
        # In the dtype in which they came while of one micro-batch, in fp32 from the second on.
        self._gradients: dict[Tensor, Tensor] = {}
        self._gradient_scale: Tensor | float = 1.0
        for parameter in self.model_parameters:
            parameter.register_post_accumulate_grad_hook(partial(self._take_gradient, parameter))

    @property
    def masters(self) -> list[nn.Parameter]:
        return [master for _, _, master in self._blocks]

    def gradient_of(self, parameter: nn.Parameter) -> nn.Parameter:
        """A leaf that takes a parameter's gradient in fp32; it has its shape, and no values."""
        leaf = _without_values(parameter)
        leaf.register_post_accumulate_grad_hook(partial(self._take_gradient, parameter))
        return leaf

    def _take_gradient(self, parameter: Tensor, leaf: Tensor) -> None:
        assert leaf.grad is not None
        grad, leaf.grad = leaf.grad, None
        if parameter not in self._gradients:
            self._gradients[parameter] = grad.to_dense()
            return
        held = self._gradients[parameter] = self._gradients[parameter].float()
        if grad.is_sparse:
            held.index_add_(0, grad._indices()[0], grad._values().float())
        else:
            held += grad

    def gradients(self) -> list[Tensor]:
        """All gradients, in fp32 and the order of the parameters (to be added up over devices)."""
        for parameter, gradient in self._gradients.items():
            self._gradients[parameter] = gradient.float()
        return [self._gradients[p] for p in self.model_parameters if p in self._gradients]

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Have the next step scale the gradients to a norm of at most `max_norm`.

        Returns their norm, of all together, as `torch.nn.utils.clip_grad_norm_` does.
        """
        norms = [
            torch.linalg.vector_norm(gradient, dtype=torch.float32)
            for gradient in self._gradients.values()
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        self._gradient_scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        return norm

    @torch.no_grad()
    def step(self, optimizer: Any) -> None:
        """One step of an optimiser over `masters`, one block at a time; ends the gradients."""
        for i, rows, master in self._blocks:
            parameter, residual = self.model_parameters[i], self.residuals[i][rows]
            master.untyped_storage().resize_(4 * master.numel())
            join(parameter[rows], residual, out=master)
            if parameter in self._gradients:
                master.grad = self._gradients[parameter][rows].float() * self._gradient_scale
            optimizer.step()
            split(master, parameter[rows], residual)
            master.grad = None
            master.untyped_storage().resize_(0)
        self._gradients.clear()

    @torch.no_grad()
    def give_to_model(self) -> None:
        """Make the model hold the masters themselves, in fp32 (at the end, before saving)."""
        for parameter, residual in zip(self.model_parameters, self.residuals, strict=True):
            whole = torch.empty_like(parameter, dtype=torch.float32)
            join(parameter, residual, out=whole)
            parameter.data = whole


def _rows(parameter: Tensor) -> list[slice]:
    count = max(BLOCK[parameter.device.type] // parameter[0].numel(), 1)
    return [slice(start, start + count) for start in range(0, len(parameter), count)]


def _without_values(like: Tensor) -> nn.Parameter:
    values = nn.Parameter(torch.empty_like(like, dtype=torch.float32))
    values.untyped_storage().resize_(0)
    return values


def split(whole: Tensor, rounded: Tensor, residual: Tensor) -> None:
    """Write fp32 values as their nearest bf16 ones (ties away from 0) and the 16 bits between.

    Spoils `whole`. A float's bits count up with its magnitude, so that rounding is an addition.
    """
    bits = whole.view(torch.int32).add_(2**15)
    residual.copy_(bits).bitwise_xor_(-(2**15))  # the lower half, and the 2**15 off it again
    bits.bitwise_and_(-(2**16))
    rounded.copy_(whole)


def join(rounded: Tensor, residual: Tensor, *, out: Tensor) -> None:
    """Write the fp32 values that `split` was given, bit by bit."""
    out.copy_(rounded).view(torch.int32).add_(residual)
