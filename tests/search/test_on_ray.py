"""A local Ray of two workers: the trees of one machine, whoever dies on the way."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from marco.config import ROOT
from marco.search.on_ray import Dispenser

from .searches import problem


def test_a_problem_is_handed_to_one_worker_and_again_to_its_successor() -> None:
    placed = [(i, problem(i)) for i in range(5)]
    dispenser = Dispenser(placed)
    dispenser.begin(0, set())
    dispenser.begin(1, {"p3"})  # its journal knows p3 from an earlier run
    assert dispenser.next(1) == placed[3]
    assert [dispenser.next(0), dispenser.next(1), dispenser.next(0)] == [
        placed[0],
        placed[1],
        placed[2],
    ]
    dispenser.finish(0, 0)
    dispenser.begin(0, {"p0", "p2"})  # worker 0 died with p2 unfinished
    assert [dispenser.next(0), dispenser.next(0), dispenser.next(0)] == [placed[2], placed[4], None]
    assert dispenser.next(1) is None


def generate(folder: Path, models: Path, *overrides: str) -> subprocess.Popen[str]:
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    if not (outputs / "models").exists():
        (outputs / "models").symlink_to(models)
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "generate.py"),
            "engine=scripted",
            "logger=none",
            "task.train=30",
            f"outputs={outputs}",
            f"engine.log={folder / 'requests.txt'}",
            *overrides,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_DEDUP_LOGS": "0"},
    )


def trees(folder: Path) -> bytes:
    [path] = folder.glob("outputs/trees/arithmetic*/trees.jsonl")
    return path.read_bytes()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Ray workers below a process that are searching."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "ray::RayWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_output_is_the_local_one(
    tmp_path: Path, embedded_folder: Path
) -> None:
    here = generate(tmp_path / "here", embedded_folder.parent)
    assert here.wait(120) == 0, here.communicate()[0]
    once = (tmp_path / "here" / "requests.txt").read_text().split()
    spread = generate(
        tmp_path / "ray",
        embedded_folder.parent,
        "cluster=ray",
        "cluster.workers=2",
        "engine.latency_s=0.3",
        "engine.max_num_seqs=8",
    )
    log = tmp_path / "ray" / "requests.txt"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and len(log.read_text().split()) > 150):
        time.sleep(0.1)
    first = workers_of(spread)
    assert len(first) == 2
    first[0].kill()
    out, _ = spread.communicate(timeout=240)
    assert spread.returncode == 0, out
    assert "died; another takes its journal over" in out
    assert trees(tmp_path / "ray") == trees(tmp_path / "here")
    asked = log.read_text().split()
    assert set(asked) == set(once)
    assert len(asked) <= len(once) + 8  # what the dead one had in flight
    [manifest] = (tmp_path / "ray").glob("outputs/trees/*/manifest.json")
    names = json.loads(manifest.read_text())["files"]
    assert {"journal/worker-0.sqlite", "journal/worker-1.sqlite", "trees.jsonl"} <= names.keys()


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, embedded_folder: Path) -> None:
    lost = generate(tmp_path, embedded_folder.parent, "cluster=ray", "cluster.address=127.0.0.1:1")
    out, _ = lost.communicate(timeout=120)
    assert lost.returncode != 0 and "Traceback" not in out
    assert "no Ray cluster at 127.0.0.1:1" in out
