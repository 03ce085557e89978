"""Two processes on one run, and shards of a model: the same as one."""

import json
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from marco.errors import UserError
from marco.termination import exit_on_sigterm
from marco.training import checkpoint, launch
from marco.training.config import LossConfig, TrainerConfig
from marco.training.fit import CHECKPOINTS, _Watch, train_student
from marco.training.module import ChainModule
from marco.work import Order
from marco.work import train_student as train_stage

from .test_fit import history, preference, reference

Settings = Callable[..., TrainerConfig]
SFT = LossConfig(preference=None, alpha=1.0, mask="none", weights={})
TASK = Path(__file__).parents[2] / "conf" / "task" / "arithmetic.yaml"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).state_dict()


def write_order(
    out: Path, trainer: TrainerConfig, inputs: dict[str, Path], *, loss: LossConfig | None = None
) -> None:
    """A training stage as `marco.stages` writes it."""
    out.mkdir()
    values = {
        "kind": "student",
        "key": "key",
        "config": {
            "student": str(inputs["start"]),
            "loss": (loss or preference()).model_dump(),
            "trainer": trainer.model_dump(),
            "seed": 0,
        },
        "inputs": {name: str(path) for name, path in inputs.items()},
        "labels": {"title": "two", "task": yaml.safe_load(TASK.read_text(encoding="utf-8"))},
        "cluster": {"threads": 1},
    }
    (out / "config.yaml").write_text(json.dumps(values), encoding="utf-8")


def rank(number: int, port: int, out: Path, told_before: int, breaks_at: int) -> None:
    """A process as torchrun starts it; the second is told to end between two steps, or breaks.

    It ends with 2 where there is a line for the person, as a stage's process does.
    """
    if number == 1 and breaks_at:
        terms = ChainModule.terms

        def broken(self: ChainModule, *given: Any) -> Any:
            found, pairs = terms(self, *given)
            if len(self.history) + 1 == breaks_at:
                found["loss"] = found["loss"] * torch.inf
            return found, pairs

        ChainModule.terms = broken
    if number == 1 and told_before:
        step = _Watch.on_train_batch_start

        def told(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
            if len(module.history) + 1 == told_before:
                os.kill(os.getpid(), signal.SIGTERM)
            step(self, trainer, module, *rest)

        _Watch.on_train_batch_start = told
    exit_on_sigterm()
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        launch.IS_RANK: "1",
    }
    torch.set_num_threads(1)
    try:
        train_stage(Order.read(out))
    except UserError as error:
        (out / f"told-{number}").write_text(str(error))
        sys.exit(2)


def by_fork(out: Path, *, told_before: int = 0, breaks_at: int = 0) -> list[int | None]:
    """Two ranks, forked from a process that has imported what they need; their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["marco.training.fit"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        context.Process(target=rank, args=(number, port, out, told_before, breaks_at))
        for number in (0, 1)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return [process.exitcode for process in ranks]


def by_torchrun(out: Path) -> list[int | None]:
    train_stage(Order.read(out))
    return [0, 0]


@pytest.mark.parametrize(
    ("start_ranks", "precision"),
    [
        (by_fork, "64-true"),
        (by_fork, "bf16-master"),
        pytest.param(by_torchrun, "64-true", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_the_same_student_as_one(
    start: Path,
    pairs_folder: Path,
    tmp_path: Path,
    settings: Settings,
    start_ranks: Callable[[Path], list[int | None]],
    precision: str,
):
    ref = reference(start, pairs_folder, tmp_path / "ref", precision=precision)
    # Five pairs of four problems make several forwards: of an odd step one rank runs an idle one.
    common = {"micro_batch_tokens": 90, "batch_size": 5, "save_dtype": "float32"}
    common["precision"] = precision
    train_student(
        start=start,
        dataset=pairs_folder,
        reference=ref,
        out=tmp_path / "one",
        loss=preference(),
        trainer=settings(**common),
        seed=0,
        run="one",
    )
    inputs = {"start": start, "dataset": pairs_folder, "reference": ref}
    write_order(tmp_path / "two", settings(devices=2, **common), inputs)
    assert start_ranks(tmp_path / "two") == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=2e-5)
    rows = zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True)
    for ours, theirs in rows:
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["rewards/margin"] == pytest.approx(theirs["rewards/margin"], abs=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_process_ends_both_after_the_same_step(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    # 8 examples in steps of 3, twice.
    inputs = {"start": start, "dataset": sft_folder}
    trainer = settings(devices=2, save_dtype="float32")
    write_order(tmp_path / "told", trainer, inputs, loss=SFT)
    assert by_fork(tmp_path / "told", told_before=4) == [143, 143]
    saved = checkpoint.load(tmp_path / "told" / CHECKPOINTS, run="key", strategy="ddp")
    assert saved is not None and len(saved["history"]) == 4
    for name in ("told", "undisturbed"):  # the first goes on, now as one process
        train_student(
            **inputs,
            reference=None,
            out=tmp_path / name,
            loss=SFT,
            trainer=settings(save_dtype="float32"),
            seed=0,
            run="key",
        )
    assert len(history(tmp_path / "told")) == len(history(tmp_path / "undisturbed")) == 6
    undisturbed, told = weights(tmp_path / "undisturbed"), weights(tmp_path / "told")
    for name, weight in undisturbed.items():
        torch.testing.assert_close(told[name], weight, rtol=0, atol=2e-5)


def test_a_loss_that_is_not_finite_on_one_device_ends_both_with_a_line(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    inputs = {"start": start, "dataset": sft_folder}
    write_order(tmp_path / "broken", settings(devices=2), inputs, loss=SFT)
    assert by_fork(tmp_path / "broken", breaks_at=2) == [2, 2]
    for number in (0, 1):
        told = (tmp_path / "broken" / f"told-{number}").read_text()
        assert told.startswith("the loss is not finite at step 2 of 6; lower")


@pytest.mark.slow
def test_an_adapters_dropout_on_two_devices_goes_on_with_the_same_bits(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    lora = {"rank": 2, "alpha": 4, "dropout": 0.2, "targets": "all-linear"}
    trainer = settings(devices=2, lora=lora, micro_batch_tokens=90, save_dtype="float32")
    for name, told_before in (("told", 4), ("undisturbed", 0)):
        inputs = {"start": start, "dataset": sft_folder}
        write_order(tmp_path / name, trainer, inputs, loss=SFT)
        ended = by_fork(tmp_path / name, told_before=told_before)
        assert ended == [143 if told_before else 0] * 2
    assert by_fork(tmp_path / "told") == [0, 0]
    undisturbed, told = weights(tmp_path / "undisturbed"), weights(tmp_path / "told")
    assert all(torch.equal(told[name], weight) for name, weight in undisturbed.items())


def launcher(out: Path, trainer: TrainerConfig) -> None:
    launch.launch(out, trainer)


@pytest.mark.slow
def test_what_was_launched_ends_with_a_process_that_is_killed(tmp_path: Path, settings: Settings):
    told = tmp_path / "told"
    script = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w')); time.sleep(99)"
    command = f"{sys.executable} -c {shlex.quote(script)} {told}"
    trainer = settings(devices=2, launch=command)
    stage = multiprocessing.get_context("forkserver").Process(
        target=launcher, args=(tmp_path, trainer)
    )
    stage.start()
    started = wait_for(lambda: told.exists() and told.read_text().strip())
    os.kill(stage.pid, signal.SIGKILL)
    stage.join()
    wait_for(lambda: not is_alive(int(started)))


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120  # starting a process that imports torch, on a busy machine
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come in 120 s")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_shards_give_the_gradients_of_the_whole():
    here = Path(__file__).parent / "sharded.py"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(here)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("same") == 2


def test_a_launcher_is_needed_once(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    assert not launch.is_needed(settings())
    assert launch.is_needed(settings(devices=2)) and launch.is_needed(settings(nodes=2))
    monkeypatch.setenv(launch.IS_RANK, "1")
    assert not launch.is_needed(settings(devices=2))
