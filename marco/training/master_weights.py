"""Full-precision weights behind a bf16 model, so that small updates are not lost."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Weights whose fp32 values exist at once, in an optimiser's step. On a CPU they are what its cache
# holds, and no larger than the holes that a backward leaves; on a GPU each lot costs launches.
AT_ONCE = {"cpu": 2**20, "cuda": 2**26}
_Block = tuple[int, slice, nn.Parameter]  # which parameter, its rows, what the optimiser takes


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
        self._lots = _lots(self.model_parameters)
        # Two micro-batches' as they came; from the third on their sum, as its bf16 and residual in
        # the same blocks. A sum in fp32 takes no more, but moves every block, and leaves holes.
        self._gradients: dict[Tensor, list[Tensor]] = {}
        self._leaves: list[nn.Parameter] = []
        for parameter in self.model_parameters:
            parameter.register_post_accumulate_grad_hook(self._take_gradient)

    @property
    def masters(self) -> list[nn.Parameter]:
        return [master for lot in self._lots for _, _, master in lot]

    def gradient_of(self, parameter: nn.Parameter) -> nn.Parameter:
        """A leaf that takes a parameter's gradient in fp32; it has its shape, and no values.

        Its `grad` is the sum so far, to which a backward may add by itself.
        """
        leaf = _without_values(parameter)
        self._leaves.append(leaf)

        def take(leaf: Tensor) -> None:
            assert leaf.grad is not None
            self._gradients[parameter] = [leaf.grad]

        leaf.register_post_accumulate_grad_hook(take)
        return leaf

    def _take_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        grad, parameter.grad = parameter.grad, None
        held = self._gradients.setdefault(parameter, [])
        if grad.is_sparse:  # a token that occurs often would be summed in bf16
            if not held:
                held.append(torch.zeros_like(parameter, dtype=torch.float32))
            held[0].index_add_(0, grad._indices()[0], grad._values().float())
        elif not held or (len(held) == 1 and held[0].dtype != torch.float32):
            held.append(grad)
        else:
            total = _sum(held).add_(grad)
            if held[0].dtype != torch.float32:  # else it was added in place
                held[1] = held[1].view(torch.int16)
                split(total, held[0], held[1])

    def gradients(self) -> list[Tensor]:
        """All gradients, in fp32 and the order of the parameters (to be added up over devices)."""
        for parameter in self.model_parameters:
            self._gradients[parameter] = [_sum(self._gradients[parameter])]
        return [self._gradients[parameter][0] for parameter in self.model_parameters]

    def norm(self) -> Tensor:
        """The Euclidean norm of all gradients together."""
        norms = [
            torch.linalg.vector_norm(_sum(self._gradients[parameter]))
            for parameter in self.model_parameters
        ]
        return torch.linalg.vector_norm(torch.stack(norms))

    @torch.no_grad()
    def step(self, optimizer: Any, *, scale: Tensor | float = 1.0) -> None:
        """One step of an optimiser over `masters`, some at a time; ends the gradients.

        Their gradients are multiplied by `scale` before.
        """
        for lot in self._lots:
            for i, rows, master in lot:
                parameter = self.model_parameters[i]
                master.untyped_storage().resize_(4 * master.numel())
                join(parameter[rows], self.residuals[i][rows], out=master)
                master.grad = _sum([g[rows] for g in self._gradients[parameter]]) * scale
            optimizer.step()
            for i, rows, master in lot:
                split(master, self.model_parameters[i][rows], self.residuals[i][rows])
                master.grad = None
                master.untyped_storage().resize_(0)
        self._gradients.clear()
        for leaf in self._leaves:
            leaf.grad = None

    @torch.no_grad()
    def give_to_model(self) -> None:
        """Make the model hold the masters themselves, in fp32 (at the end, before saving)."""
        for parameter, residual in zip(self.model_parameters, self.residuals, strict=True):
            whole = torch.empty_like(parameter, dtype=torch.float32)
            # Lightning has moved the model to the CPU by then.
            join(parameter, residual.to(parameter.device), out=whole)
            parameter.data = whole
        self.residuals.clear()


def _sum(held: Sequence[Tensor]) -> Tensor:
    """In fp32, the sum of one or two gradients, or of a bf16 one and its residual."""
    if len(held) == 1:
        return held[0].float()
    if held[1].dtype == torch.int16:
        return join(held[0], held[1], out=torch.empty_like(held[0], dtype=torch.float32))
    return held[0].float().add_(held[1])


def clip_scale(norm: Tensor, *, most: float) -> Tensor:
    """What gradients of this norm are multiplied by, as by `torch.nn.utils.clip_grad_norm_`."""
    return (most / (norm + 1e-6)).clamp(max=1.0)


def _lots(parameters: Sequence[Tensor]) -> list[list[_Block]]:
    """All rows of the parameters, in lots of `AT_ONCE` weights at most (or of one row)."""
    lots: list[list[_Block]] = [[]]
    room = 0
    for i, parameter in enumerate(parameters):
        most, row = AT_ONCE[parameter.device.type], parameter[0].numel()
        start = 0
        while start < len(parameter):
            if room < row:
                lots.append([])
                room = max(most, row)
            rows = slice(start, min(start + room // row, len(parameter)))
            lots[-1].append((i, rows, _without_values(parameter[rows])))
            room -= (rows.stop - start) * row
            start = rows.stop
    return [lot for lot in lots if lot]


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


def join(rounded: Tensor, residual: Tensor, *, out: Tensor) -> Tensor:
    """Write the fp32 values that `split` was given, bit by bit, and return them."""
    out.copy_(rounded).view(torch.int32).add_(residual)
    return out
