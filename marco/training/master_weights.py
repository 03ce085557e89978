"""Full-precision weights beside a low-precision model, so that small updates are not lost."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MasterWeights:
    """fp32 copies of the parameters, for the optimiser; the model computes with rounded ones.

    A bf16 weight changes only by steps of 1/256 of itself, and AdamW at a learning rate of 2e-5
    asks for less. Gradients are summed over micro-batches in fp32 on the masters; those of an
    embedding may come as its rows alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.model_parameters = [p for p in parameters if p.requires_grad]
        self.masters = [nn.Parameter(p.detach().float()) for p in self.model_parameters]
        self._master_of = dict(zip(self.model_parameters, self.masters, strict=True))
        for parameter in self.model_parameters:
            parameter.register_post_accumulate_grad_hook(self._take_gradient)

    def _take_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        grad, parameter.grad = parameter.grad, None
        master = self.of(parameter)
        if master.grad is None:
            master.grad = grad.to_dense().float()
        elif grad.is_sparse:
            master.grad.index_add_(0, grad._indices()[0], grad._values().float())
        else:
            master.grad += grad

    def of(self, parameter: Tensor) -> nn.Parameter:
        """The copy of a parameter of the model."""
        return self._master_of[parameter]  # type: ignore[index]

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Round the masters into the model's own parameters (after every optimiser step)."""
        for parameter, master in zip(self.model_parameters, self.masters, strict=True):
            parameter.copy_(master)

    @torch.no_grad()
    def give_to_model(self) -> None:
        """Make the model hold the masters themselves, in fp32 (at the end, before saving)."""
        for parameter, master in zip(self.model_parameters, self.masters, strict=True):
            parameter.data = master.data
