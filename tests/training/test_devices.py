"""Two processes on one run, and shards of a model: the same as one."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from marco.training import launch
from marco.training.config import TrainerConfig
from marco.training.fit import train_student
from marco.work import Order
from marco.work import train_student as train_stage

from .test_fit import history, preference, reference

Settings = Callable[..., TrainerConfig]
TASK = Path(__file__).parents[2] / "conf" / "task" / "arithmetic.yaml"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).state_dict()


def write_order(out: Path, trainer: TrainerConfig, inputs: dict[str, Path]) -> None:
    """A training stage as `marco.stages` writes it."""
    out.mkdir()
    values = {
        "kind": "student",
        "key": "key",
        "config": {
            "student": str(inputs["start"]),
            "loss": preference().model_dump(),
            "trainer": trainer.model_dump(),
            "seed": 0,
        },
        "inputs": {name: str(path) for name, path in inputs.items()},
        "labels": {"title": "two", "task": yaml.safe_load(TASK.read_text(encoding="utf-8"))},
        "cluster": {"threads": 1},
    }
    (out / "config.yaml").write_text(json.dumps(values), encoding="utf-8")


def rank(number: int, port: int, out: Path) -> None:
    """A process as torchrun starts it."""
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
    train_stage(Order.read(out))


def by_fork(out: Path) -> None:
    """Two ranks, forked from a process that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["marco.training.fit"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=rank, args=(number, port, out)) for number in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
        assert process.exitcode == 0


def by_torchrun(out: Path) -> None:
    train_stage(Order.read(out))


@pytest.mark.parametrize(
    "start_ranks", [by_fork, pytest.param(by_torchrun, marks=pytest.mark.slow)]
)
def test_two_processes_train_the_same_student_as_one(
    start: Path,
    pairs_folder: Path,
    tmp_path: Path,
    settings: Settings,
    start_ranks: Callable[[Path], None],
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    # Five pairs of four problems make several forwards: of an odd step one rank runs an idle one.
    common = {"micro_batch_tokens": 90, "batch_size": 5, "save_dtype": "float32"}
    train_student(
        start=start,
        dataset=pairs_folder,
        reference=ref,
        out=tmp_path / "one",
        loss=preference(),
        trainer=settings(**common),
        seed=0,
        run="one",
        lineage={},
    )
    inputs = {"start": start, "dataset": pairs_folder, "reference": ref}
    write_order(tmp_path / "two", settings(devices=2, **common), inputs)
    start_ranks(tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=2e-5)
    rows = zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True)
    for ours, theirs in rows:
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["rewards/margin"] == pytest.approx(theirs["rewards/margin"], abs=1e-4)


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
