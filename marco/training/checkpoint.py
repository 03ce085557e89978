"""Where a training run stands, on disk: it goes on from there with bitwise the same weights."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from marco.disk import sync
from marco.errors import UserError
from marco.failpoints import cross

FILE = "checkpoint.pt"
SCHEMA = 5


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all; the one before it stays until it is."""
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: a process that outlives its script may be writing, too. It ends when its
    # file is gone, and what a killed one has left is as large as the checkpoint.
    for left in folder.glob(f".{FILE}.*.new"):
        left.unlink(missing_ok=True)
    new = folder / f".{FILE}.{os.getpid()}.new"
    cross("checkpoint.write.before")
    with new.open("wb") as file:
        torch.save({"schema": SCHEMA, **state}, file)
        cross("checkpoint.write.after")
        file.flush()
        os.fsync(file.fileno())
    cross("checkpoint.rename.before")
    os.replace(new, folder / FILE)
    cross("checkpoint.rename.after")
    sync(folder)


def load(folder: Path, *, run: str, strategy: str) -> dict[str, Any] | None:
    """The last checkpoint, None where there is none.

    UserError for one of another run, or that another strategy has written.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its unpickler and zip reader raise
        raise UserError(f"{path}: is no checkpoint that can be read: delete it") from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise UserError(f"{path}: is not a checkpoint of schema {SCHEMA}: delete it")
    if state["run"] != run:
        raise UserError(
            f"{path}: belongs to a run with another config, dataset or student; delete it, or "
            "train in another folder"
        )
    if state["strategy"] != strategy:
        raise UserError(
            f"{path}: was written with trainer.strategy={state['strategy']}: go on with that, or "
            "delete it"
        )
    return state


def state_of(module: Any, *, run: str) -> dict[str, Any]:
    """All that a run's next steps depend on: weights, optimiser, schedule, log.

    No generators: each step's order and dropout depend on the seed and its number alone.
    """
    optimizer = module.optimizers().optimizer
    if module.settings.strategy == "fsdp":
        weights, moments = get_state_dict(module, optimizer, options=_WHOLE)
    else:
        weights, moments = _weights(module), optimizer.state_dict()
    return {
        "run": run,
        "strategy": module.settings.strategy,
        "weights": weights,
        "optimizer": moments,
        "schedule": module.lr_schedulers().state_dict(),
        "history": module.history,
    }


@torch.no_grad()
def restore(module: Any, state: Mapping[str, Any]) -> None:
    """Set a module, whose optimiser stands, to where `state_of` was taken."""
    optimizer = module.optimizers().optimizer
    if module.settings.strategy == "fsdp":
        set_state_dict(
            module,
            optimizer,
            model_state_dict=state["weights"],
            optim_state_dict=state["optimizer"],
            options=_WHOLE,
        )
    else:
        for weight, value in zip(_weights(module), state["weights"], strict=True):
            weight.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
    module.lr_schedulers().load_state_dict(state["schedule"])
    module.history[:] = state["history"]


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


def _weights(module: Any) -> list[Any]:
    """What training changes: the model's parameters, and what they lack of the fp32 masters."""
    residuals = [] if module.masters is None else module.masters.residuals
    return [p.detach() for p in module.trained] + residuals
