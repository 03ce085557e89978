"""A real `generate.py`, killed at random points: nothing lost, nothing asked twice."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from marco.config import ROOT
from marco.failpoints import FAILPOINTS

PROBLEMS = 24
KILLS = {1: 2, 8: 4, 64: 4}  # by concurrency
TORTURE = {1: 40, 8: 80, 64: 80}


class Run:
    """A search by the scripted engine, in an output folder of its own."""

    def __init__(self, folder: Path, models: Path, *, concurrency: int, latency_s: float) -> None:
        self.outputs = folder / "outputs"
        self.outputs.mkdir(parents=True)
        (self.outputs / "models").symlink_to(models)
        self.log = folder / "requests.txt"
        self.log.touch()
        self.arguments = [
            "engine=scripted",
            "logger=none",
            f"task.train={PROBLEMS}",
            "task.validation=1",
            "task.test=1",
            f"engine.max_num_seqs={concurrency}",
            f"engine.latency_s={latency_s}",
            f"engine.log={self.log}",
            f"outputs={self.outputs}",
        ]

    def start(self, *before: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, sys.executable, str(ROOT / "generate.py"), *self.arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> bytes:
        """Run, without latency, until the trees are finished, and no further; the trees."""
        self.arguments.append("engine.latency_s=0")
        process = self.start()
        while process.poll() is None and not list(self.outputs.glob("trees/arithmetic*")):
            time.sleep(0.02)
        kill(process)
        [trees] = self.outputs.glob("trees/arithmetic*/trees.jsonl")
        return trees.read_bytes()

    def requests(self) -> Counter[str]:
        return Counter(self.log.read_text().split())

    def kept(self, tmp: Path) -> set[str]:
        """The keys that are durable now, read from a copy: opening the journal would mend it."""
        found = list(self.outputs.glob("trees/*/journal/*")) + list(
            self.outputs.glob("trees/.*/journal/*")
        )
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        for path in found:
            shutil.copy(path, tmp / path.name)
        if not (tmp / "worker-0.sqlite").exists():
            return set()
        connection = sqlite3.connect(tmp / "worker-0.sqlite")
        try:
            return {key for (key,) in connection.execute("SELECT key FROM completions")}
        except sqlite3.OperationalError:  # killed before its tables were there
            return set()
        finally:
            connection.close()

    def has_begun(self) -> bool:
        return self.log.stat().st_size > 0


def kill(process: subprocess.Popen[str]) -> None:
    """The script, the stage's process and the fork server, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def has_opened_journal(process: subprocess.Popen[str]) -> bool:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        files = [file.path for child in children for file in child.open_files()]
    except psutil.Error:  # one has ended meanwhile
        return False
    return any(path.endswith("worker-0.sqlite") for path in files)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, embedded_folder: Path
) -> tuple[bytes, Counter[str]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Run(folder, embedded_folder.parent, concurrency=64, latency_s=0.0)
    trees, requests = run.finish(), run.requests()
    assert set(requests.values()) == {1}
    return trees, requests


def _killed(
    run: Run, kills: int, tmp: Path, undisturbed: tuple[bytes, Counter[str]], concurrency: int
) -> None:
    expected, once = undisturbed
    chance = random.Random(concurrency)
    durable: set[str] = set()
    hits = 0
    for _ in range(kills):
        before = run.requests()
        process = run.start()
        # At a random moment from the journal's opening on, or from the first new request on.
        while process.poll() is None and not has_opened_journal(process):
            time.sleep(0.01)
        if chance.random() < 0.6:
            while process.poll() is None and run.requests() == before:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.5))
        else:
            time.sleep(chance.uniform(0.0, 1.0))
        hits += process.poll() is None
        kill(process)
        asked_twice = (run.requests() - before).keys() & durable
        assert not asked_twice
        assert durable <= (durable := run.kept(tmp))  # nothing acknowledged is lost
    assert hits == kills  # it was still running each time
    before = run.requests()
    assert run.finish() == expected
    requests = run.requests()
    assert not (requests - before).keys() & durable
    assert requests.keys() == once.keys()
    assert requests.total() <= once.total() + kills * concurrency
    assert run.kept(tmp) == once.keys()


@pytest.mark.parametrize("concurrency", KILLS)
def test_kills_lose_nothing(
    concurrency: int,
    tmp_path: Path,
    embedded_folder: Path,
    undisturbed: tuple[bytes, Counter[str]],
) -> None:
    latency = {1: 0.005, 8: 0.04, 64: 0.2}[concurrency]
    run = Run(tmp_path / "r", embedded_folder.parent, concurrency=concurrency, latency_s=latency)
    _killed(run, KILLS[concurrency], tmp_path / "copy", undisturbed, concurrency)


@pytest.mark.torture
@pytest.mark.parametrize("concurrency", TORTURE)
def test_two_hundred_kills_lose_nothing(
    concurrency: int,
    tmp_path: Path,
    embedded_folder: Path,
    undisturbed: tuple[bytes, Counter[str]],
) -> None:
    latency = {1: 0.02, 8: 0.2, 64: 0.9}[concurrency]
    run = Run(tmp_path / "r", embedded_folder.parent, concurrency=concurrency, latency_s=latency)
    _killed(run, TORTURE[concurrency], tmp_path / "copy", undisturbed, concurrency)


def test_every_failpoint_is_crossed_and_survived(
    tmp_path: Path, embedded_folder: Path, undisturbed: tuple[bytes, Counter[str]]
) -> None:
    """One run that is killed at each of them, the renames at its end last."""
    expected, once = undisturbed
    run = Run(tmp_path / "r", embedded_folder.parent, concurrency=8, latency_s=0.0)
    durable: set[str] = set()
    # Those of a training are crossed in tests/training/test_resume.py.
    points = [point for point in FAILPOINTS if not point.startswith("checkpoint.")]
    for point in sorted(points, key=lambda point: "rename" in point):
        before = run.requests()
        process = run.start(MARCO_FAILPOINT=f"{point}:{1 if 'rename' in point else 5}")
        out, _ = process.communicate(timeout=120)
        assert process.returncode == -9 or "ended by SIGKILL" in out, (point, out)
        assert not (run.requests() - before).keys() & durable
        assert durable <= (durable := run.kept(tmp_path / "copy"))
    assert run.finish() == expected
    assert run.requests().total() <= once.total() + 8 * len(points)


def test_sigterm_flushes_and_ends_with_143(
    tmp_path: Path, embedded_folder: Path, undisturbed: tuple[bytes, Counter[str]]
) -> None:
    expected, _ = undisturbed
    run = Run(tmp_path / "r", embedded_folder.parent, concurrency=8, latency_s=0.1)
    process = run.start()
    while not run.has_begun():
        time.sleep(0.01)
    time.sleep(0.4)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143, out
    assert "Traceback" not in out
    [journal] = run.outputs.glob("trees/.*/journal")
    assert sorted(path.name for path in journal.iterdir()) == [
        "findings.sqlite",
        "worker-0.sqlite",
    ]  # closed in order
    before, kept = run.requests(), run.kept(tmp_path / "copy")
    assert len(kept) >= before.total() - 8  # all but what was in flight
    assert run.finish() == expected
    assert not (run.requests() - before).keys() & kept


def test_a_finished_run_repeated_asks_for_nothing(tmp_path: Path, embedded_folder: Path) -> None:
    run = Run(tmp_path / "r", embedded_folder.parent, concurrency=8, latency_s=0.0)
    trees = run.finish()
    before = run.requests()
    assert run.finish() == trees
    [manifest] = run.outputs.glob("trees/arithmetic*/manifest.json")
    part = manifest.parent.with_name(f".{manifest.parent.name}.part")
    manifest.parent.rename(part)  # as if it had been killed right before its end
    assert run.finish() == trees
    assert run.requests() == before


MOUNT = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
FULL = 'ulimit -f 600 && exec "$@"'  # of 512 bytes: no file may grow beyond
READ_ONLY = 'mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec "$@"'


def test_a_disk_that_refuses_is_told_and_costs_nothing_that_was_finished(
    tmp_path: Path, embedded_folder: Path, undisturbed: tuple[bytes, Counter[str]]
) -> None:
    run = Run(tmp_path / "r", embedded_folder.parent, concurrency=8, latency_s=0.0)
    _told(run.start("sh", "-c", FULL, "sh"), "cannot write .*(full|disk I/O error)")
    before, kept = run.requests(), run.kept(tmp_path / "copy")
    assert len(kept) > 40
    is_mounted = can_mount()
    if is_mounted:
        _told(run.start(*MOUNT, READ_ONLY.format(run.outputs), "sh"), "[Rr]ead-only")
        assert run.kept(tmp_path / "copy") == kept
    assert run.finish() == undisturbed[0]
    assert not (run.requests() - before).keys() & kept
    if not is_mounted:
        pytest.skip("the full disk passed; a read-only one needs `unshare` with mounts")


def can_mount() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(
            [*MOUNT, "mount -t tmpfs x /mnt"], stderr=subprocess.DEVNULL
        ).returncode
    )


def _told(process: subprocess.Popen[str], message: str) -> None:
    out, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert re.search(f"error: .*{message}", out) and "Traceback" not in out, out
