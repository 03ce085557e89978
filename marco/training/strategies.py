"""How several devices share a run: whole models whose gradients are added up, or FSDP2's shards."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from transformers import AutoModelForCausalLM

from marco.logps import chain_logps
from marco.training.config import TrainerConfig
from marco.training.tree_batch import TreeBatch


class SummedDDP(DDPStrategy):
    """Lightning's processes and devices without its wrapper around the model.

    The wrapper averages the gradients of one backward; a step of ours is several, and its loss is
    normalised over all devices already, so the module adds the gradients up itself.
    """

    def configure_ddp(self) -> None:
        pass


def strategy_of(settings: TrainerConfig) -> Strategy | str:
    """The Lightning strategy of a trainer's config."""
    if settings.strategy == "fsdp":
        return ModelParallelStrategy(data_parallel_size=settings.world_size, tensor_parallel_size=1)
    return SummedDDP() if settings.world_size > 1 else "auto"


def shard(model: Any, mesh: Any, precision: str) -> Callable[[TreeBatch], Tensor]:
    """Shard a model over `mesh`, layer by layer (FSDP2); returns its `chain_logps`.

    The head is taken apart from the model's own `forward`, so that function is made known as what
    gathers the root's parameters. Gradients are added up, as in `SummedDDP`.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision.startswith("bf16") else None,
        reduce_dtype=torch.float64 if precision.startswith("64") else torch.float32,
    )
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
    model.chain_logps = MethodType(chain_logps, model)
    register_fsdp_forward_method(model, "chain_logps")
    return model.chain_logps


def gather(model: Any) -> Any:
    """The whole model of a sharded one, on the CPU of the first rank; all ranks must call it."""
    weights = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    whole = AutoModelForCausalLM.from_config(model.config)
    if torch.distributed.get_rank() == 0:
        whole.load_state_dict(weights)
    return whole
