"""Training that is killed, during a step and during a save, and goes on to bitwise the same end."""

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marco import failpoints
from marco.errors import UserError
from marco.termination import exit_on_sigterm
from marco.training import checkpoint, fit, master_weights
from marco.training.config import LossConfig, TrainerConfig
from marco.training.fit import CHECKPOINTS, train_student
from marco.training.master_weights import MasterWeights
from marco.training.module import ChainModule

SFT = {"preference": None, "alpha": 1.0, "mask": "none", "weights": {}}
LORA = {"rank": 2, "alpha": 4, "dropout": 0.2, "targets": "all-linear"}
Settings = Callable[..., TrainerConfig]


def told_in_save(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def told_in_masters(masters: MasterWeights) -> None:
    """Half of the parameters are fp32 when the signal comes."""
    join, calls = master_weights.join, iter(range(len(masters.residuals) // 2))

    def told(*rounded: Any, **out: Any) -> None:
        join(*rounded, **out)
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)

    master_weights.join = told
    give_to_model(masters)


give_to_model = MasterWeights.give_to_model
AT_THE_END = {
    "save": (fit, "save_student", told_in_save),
    "masters": (MasterWeights, "give_to_model", told_in_masters),
}


def child(arguments: dict[str, Any], failpoint: str, sigterm_at: int, told_in: str | None) -> None:
    """What a stage's process does, with one thread so that sums have one order."""
    torch.set_num_threads(1)
    failpoints._trigger = failpoints._Trigger(failpoint)
    exit_on_sigterm()
    step = ChainModule._step

    def counted(self: ChainModule, given: Any) -> None:
        step(self, given)
        with arguments["out"].with_suffix(".steps").open("a") as file:
            file.write(".")
            if file.tell() == sigterm_at:
                os.kill(os.getpid(), signal.SIGTERM)  # within the step

    ChainModule._step = counted
    if told_in is not None:
        setattr(*AT_THE_END[told_in])
    arguments["trainer"] = TrainerConfig(**arguments["trainer"])
    arguments["loss"] = LossConfig(**SFT)
    train_student(**arguments, reference=None, seed=0, run="test")


class Training:
    """One run, attempt after attempt."""

    def __init__(self, start: Path, dataset: Path, out: Path, trainer: TrainerConfig) -> None:
        self.out = out
        self.arguments = {"start": start, "dataset": dataset, "out": out}
        self.arguments["trainer"] = trainer.model_dump()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["marco.training.fit"])

    def begin(self, failpoint: str = "", sigterm_at: int = 0, told_in: str | None = None) -> Any:
        arguments = self.arguments, failpoint, sigterm_at, told_in
        process = self.context.Process(target=child, args=arguments)
        process.start()
        return process

    def attempt(self, *how: Any, **more: Any) -> int:
        process = self.begin(*how, **more)
        process.join()
        return process.exitcode

    @property
    def is_finished(self) -> bool:
        return (self.out / "metrics.json").is_file()

    @property
    def steps(self) -> int:
        """Optimiser steps taken, in all attempts together."""
        return len(self.out.with_suffix(".steps").read_text())

    def result(self) -> tuple[bytes, str]:
        names = ("model.safetensors", "metrics.csv")
        weights, log = ((self.out / name).read_bytes() for name in names)
        return weights, log.decode()


@pytest.fixture(params=["whole", pytest.param("adapter with dropout", marks=pytest.mark.slow)])
def trainer(request: pytest.FixtureRequest, settings: Settings) -> TrainerConfig:
    lora = LORA if "adapter" in request.param else None
    return settings(epochs=4, precision="bf16-master", checkpoint_every_s=0.0, lora=lora)


def test_killed_at_any_point_it_ends_with_the_same_bits(
    start: Path, sft_folder: Path, tmp_path: Path, trainer: TrainerConfig
):
    undisturbed = Training(start, sft_folder, tmp_path / "undisturbed", trainer)
    assert undisturbed.attempt() == 0
    run = Training(start, sft_folder, tmp_path / "run", trainer)
    points = [name for name in failpoints.FAILPOINTS if name.startswith("checkpoint.")]
    for name, count in zip(points, (3, 2, 2, 1), strict=True):
        assert run.attempt(f"{name}:{count}") == -signal.SIGKILL, name
    kills, rng = len(points), random.Random(0)
    for _ in range(3):
        process = run.begin()
        process.join(rng.uniform(0.05, 0.6))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
    if not run.is_finished:
        assert run.attempt() == 0
    assert run.result() == undisturbed.result()
    assert [path.name for path in (run.out / CHECKPOINTS).iterdir()] == [checkpoint.FILE]
    # 8 examples in steps of 3, 4 times; a kill costs the step after the last checkpoint at most.
    assert undisturbed.steps == 12 <= run.steps <= 12 + kills


@pytest.mark.parametrize("step", [4, 5, 12])
def test_sigterm_ends_a_step_and_its_look_saves_and_ends_with_143(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings, step: int
):
    validation = {"share": 0.25, "every_steps": 2, "metric": "loss", "patience": 0}
    trainer = settings(epochs=6, validation=validation)
    run = Training(start, sft_folder, tmp_path / "run", trainer)
    assert run.attempt(sigterm_at=step) == 143
    saved = checkpoint.load(run.out / CHECKPOINTS, run="test", strategy="ddp")
    assert saved is not None and len(saved["history"]) == run.steps == step
    assert run.attempt() == 0
    # 6 examples in steps of 3, 6 times; none is taken twice.
    assert run.steps == 12
    undisturbed = Training(start, sft_folder, tmp_path / "undisturbed", trainer)
    assert undisturbed.attempt() == 0
    assert run.result() == undisturbed.result()


def test_sigterm_while_the_student_is_saved_costs_no_step(
    start: Path, sft_folder: Path, tmp_path: Path, trainer: TrainerConfig
):
    seldom = trainer.model_copy(update={"checkpoint_every_s": 1e9})
    undisturbed = Training(start, sft_folder, tmp_path / "undisturbed", seldom)
    assert undisturbed.attempt() == 0
    run = Training(start, sft_folder, tmp_path / "run", seldom)
    assert run.attempt(told_in="save") == 143
    assert run.attempt() == 0
    assert run.steps == undisturbed.steps == 12
    assert run.result() == undisturbed.result()


def test_sigterm_while_the_model_takes_its_masters_costs_no_step(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    validation = {"share": 0.25, "every_steps": 2, "metric": "loss", "patience": 0}
    trainer = settings(epochs=6, precision="bf16-master", validation=validation)
    undisturbed = Training(start, sft_folder, tmp_path / "undisturbed", trainer)
    assert undisturbed.attempt() == 0
    run = Training(start, sft_folder, tmp_path / "run", trainer)
    assert run.attempt(told_in="masters") == 143
    saved = checkpoint.load(run.out / CHECKPOINTS, run="test", strategy="ddp")
    assert saved is not None
    assert {weight.dtype for weight in saved["weights"]} == {torch.bfloat16, torch.int16}
    assert run.attempt() == 0
    assert run.steps == undisturbed.steps == 12
    assert run.result() == undisturbed.result()


def test_a_checkpoint_of_another_strategy_is_refused(tmp_path: Path):
    checkpoint.save(tmp_path, {"run": "test", "strategy": "fsdp"})
    with pytest.raises(UserError, match=r"was written with trainer\.strategy=fsdp"):
        checkpoint.load(tmp_path, run="test", strategy="ddp")


def test_a_checkpoint_of_another_run_is_refused(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    checkpoint.save(tmp_path / CHECKPOINTS, {"run": "other"})
    arguments: dict[str, Any] = {"start": start, "dataset": sft_folder, "reference": None}
    with pytest.raises(UserError, match="belongs to a run with another config, dataset or student"):
        train_student(
            **arguments,
            out=tmp_path,
            loss=LossConfig(**SFT),
            trainer=settings(),
            seed=0,
            run="test",
        )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", json.dumps({}).encode()])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / checkpoint.FILE).write_bytes(content)
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        checkpoint.load(tmp_path, run="test", strategy="ddp")


def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Path):
    torch.save({"schema": 1, "run": os.getcwd}, tmp_path / checkpoint.FILE)
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        checkpoint.load(tmp_path, run="test", strategy="ddp")
