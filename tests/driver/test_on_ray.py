"""A local Ray of two workers: the trees of one machine, whoever dies on the way."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from marco.config import ROOT
from marco.driver.on_ray import Dispenser
from marco.driver.worker import Counts, share_out
from marco.engines.journal import Journal

from ..engines.servers import free_port
from ..engines.test_journal import request, response
from ..search.searches import problem


def test_a_problem_is_handed_to_one_worker_and_again_to_its_successor() -> None:
    placed = [(i, problem(i)) for i in range(5)]
    # Worker 1's journal knows p3 from an earlier run.
    dispenser = Dispenser(placed, {"p3": 1}, workers=2)
    dispenser.begin(0)
    assert [dispenser.next(0), dispenser.next(0)] == placed[:2]
    dispenser.begin(1)
    assert [dispenser.next(1), dispenser.next(0)] == [placed[3], placed[2]]
    dispenser.finish(0)
    dispenser.tell(0, Counts(tokens=7, running=2))
    dispenser.begin(0)  # worker 0 died with p1 and p2 unfinished
    assert [dispenser.next(0) for _ in range(4)] == [placed[1], placed[2], placed[4], None]
    assert dispenser.next(1) is None
    told, _, _ = dispenser.told()
    assert [told[life].tokens for life in sorted(told)] == [7, 0, 0]
    assert sum(counts.running for counts in told.values()) == 0  # the dead one has none


def test_a_late_worker_gets_what_its_journal_knows() -> None:
    placed = [(i, problem(i)) for i in range(4)]
    dispenser = Dispenser(placed, {"p0": 0, "p1": 0}, workers=2)
    dispenser.begin(1)
    assert [dispenser.next(1) for _ in range(3)] == [placed[2], placed[3], None]
    dispenser.begin(0)
    assert [dispenser.next(0) for _ in range(3)] == [placed[0], placed[1], None]


def test_what_an_absent_worker_held_goes_to_an_idle_one() -> None:
    placed = [(i, problem(i)) for i in range(4)]
    dispenser = Dispenser(placed, {"p3": 2}, workers=3, absent_s=0.05)
    assert dispenser.arrive(0) and dispenser.arrive(1)
    dispenser.begin(0)
    dispenser.begin(1)
    assert [dispenser.next(0) for _ in range(2)] == placed[:2]
    assert [dispenser.next(1) for _ in range(2)] == [placed[2], None]
    assert dispenser.take_over(1) is None  # worker 2 may still come
    dispenser.bury(0)
    time.sleep(0.06)
    assert dispenser.told()[1:] == ([2, 0], {1})
    assert dispenser.take_over(1) == 2 and dispenser.next(1) == placed[3]
    assert dispenser.told()[1:] == ([0, 2], {1})  # the person is told of both, still
    assert dispenser.take_over(1) == 0
    assert [dispenser.next(1) for _ in range(3)] == [*placed[:2], None]
    assert not dispenser.arrive(0) and not dispenser.arrive(2)  # their journals are another's
    assert dispenser.take_over(1) is None and not dispenser.is_done()
    for place in range(4):
        dispenser.finish(place)
    assert dispenser.is_done()


def test_a_worker_that_found_no_work_is_no_loss_for_others() -> None:
    dispenser = Dispenser([(0, problem(0))], {}, workers=2, absent_s=0.0)
    assert dispenser.arrive(0)
    dispenser.begin(0)
    assert dispenser.take_over(0) is None  # worker 1 is absent, and has nothing
    dispenser.next(0)
    dispenser.finish(0)
    assert not dispenser.arrive(1)  # there is nothing left to do


def test_fewer_and_again_more_workers_keep_a_problems_answers_in_one_journal(
    tmp_path: Path,
) -> None:
    def write(index: int, problem: str) -> None:
        with closing(Journal(tmp_path / f"worker-{index}.sqlite", run="r")) as journal:
            asked = request(f"{problem}/0", problem=problem)
            journal.keep([(asked, response(asked.key, "x"))])

    for index in range(4):
        write(index, f"p{index}")
    (tmp_path / "worker-0.bad.sqlite").write_text("moved away by a person")
    assert share_out(tmp_path, workers=4, run="r") == {"p0": 0, "p1": 1, "p2": 2, "p3": 3}
    fewer = {"p0": 0, "p1": 1, "p2": 0, "p3": 1}
    assert share_out(tmp_path, workers=2, run="r") == fewer
    assert share_out(tmp_path, workers=4, run="r") == fewer
    assert share_out(tmp_path, workers=1, run="r") == dict.fromkeys(fewer, 0)


# `ray start` asks for a token otherwise, and one that is made there is not this process's.
ENVIRONMENT = {**os.environ, "RAY_DEDUP_LOGS": "0", "RAY_AUTH_MODE": "disabled"}


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
        env=ENVIRONMENT,
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
    out, _ = here.communicate(timeout=120)
    assert here.returncode == 0, out
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
def test_workers_without_a_place_are_told_of_and_hold_up_no_one(
    tmp_path: Path, embedded_folder: Path
) -> None:
    """Three workers in a cluster of two places; the third's journal knows answers of before."""
    here = generate(tmp_path / "here", embedded_folder.parent)
    assert here.communicate(timeout=120) and here.returncode == 0
    models, log = embedded_folder.parent, tmp_path / "ray" / "requests.txt"
    many = ("cluster=ray", "cluster.workers=3", "engine.latency_s=0.3", "engine.max_num_seqs=4")
    first = generate(tmp_path / "ray", models, *many)
    end = time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and len(log.read_text().split()) > 150):
        time.sleep(0.1)
    first.terminate()
    assert first.communicate(timeout=60) and first.returncode == 143
    before = log.read_text().split()
    with small_cluster(cpus=2) as address:
        again = generate(tmp_path / "ray", models, *many, f"cluster.address={address}")
        out, _ = again.communicate(timeout=240)
    assert again.returncode == 0, out
    assert "no place for 1 of 3 workers: each wants 1 CPUs and 0 GPUs" in out
    assert trees(tmp_path / "ray") == trees(tmp_path / "here")
    once = (tmp_path / "here" / "requests.txt").read_text().split()
    asked = log.read_text().split()
    assert set(asked) == set(once) and len(asked) <= len(once) + 3 * 4
    assert len(before) > 150


@contextmanager
def small_cluster(*, cpus: int) -> Iterator[str]:
    """A cluster of one machine, by its address."""
    ray = str(Path(sys.executable).with_name("ray"))
    port = free_port()
    start = [ray, "start", "--head", f"--num-cpus={cpus}", f"--port={port}", "--block"]
    with subprocess.Popen(
        [*start, "--include-dashboard=false"],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as head:
        try:
            wait_for_port(port)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(30)


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port} after a minute")


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, embedded_folder: Path) -> None:
    lost = generate(tmp_path, embedded_folder.parent, "cluster=ray", "cluster.address=127.0.0.1:1")
    out, _ = lost.communicate(timeout=120)
    assert lost.returncode != 0 and "Traceback" not in out
    assert "no Ray cluster at 127.0.0.1:1" in out
