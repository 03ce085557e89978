"""Worker processes for work on hostile input, which may hang, swap or crash: they can be killed.

An item is with one worker alone, so what hangs or kills it is known, and no other item is lost.
Workers start at the first use with a clean import (`python -m marco.tasks.workers`, no fork of
this process), have /dev/null for their input and outputs, and end with this process however it
ends: the kernel kills them.
"""

import atexit
import ctypes
import importlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

PR_SET_PDEATHSIG = 1
START_S = 120  # for a worker's imports on a machine that is busy otherwise
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Failed:
    """What stands for the result of an item that a worker could not finish, and why."""

    why: str


class Workers:
    """A pool of killable processes that call one function on items, in order.

    `function` is named as `module:name` and imported by the workers only. An item gets `timeout_s`
    seconds of wall-clock time and about as much of CPU time; a worker `memory_mb` MiB of address
    space. Threads may share a pool; one `map` runs at a time.
    """

    def __init__(self, function: str, *, processes: int, timeout_s: float, memory_mb: int) -> None:
        self.function = function
        self.processes = processes
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self._forget()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def map(self, items: Sequence[Any]) -> list[Any]:
        """The function's results in the items' order, `Failed` where a worker did not finish.

        Raises RuntimeError when no worker starts (its function cannot be imported).
        """
        results: list[Any] = [None] * len(items)
        waiting = deque(range(len(items)))
        crashed: set[int] = set()
        with self._lock:
            try:
                while waiting or any(worker.item is not None for worker in self._workers):
                    self._hand_out(items, waiting)
                    for worker in self._those_to_hear():
                        self._hear(worker, results, waiting, crashed)
            except BaseException:
                self.close()  # what is under way would answer the next call
                raise
        return results

    def close(self) -> None:
        """Kill all workers; a later `map` starts new ones."""
        for worker in list(self._workers):
            self._discard(worker)

    def _forget(self) -> None:
        """A fork of this process has none of its workers."""
        for worker in getattr(self, "_workers", ()):
            worker.process.returncode = 0  # not this process's to wait for
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def _hand_out(self, items: Sequence[Any], waiting: deque[int]) -> None:
        busy = sum(worker.item is not None for worker in self._workers)
        while len(self._workers) < min(self.processes, busy + len(waiting)):
            self._workers.append(_Worker(self.function, self.memory_mb, self.timeout_s))
        for worker in list(self._workers):
            if worker.is_ready and worker.item is None and waiting:
                try:
                    worker.take(waiting[0], items[waiting[0]], self.timeout_s)
                    waiting.popleft()
                except OSError:  # it died while it had nothing to do
                    self._discard(worker)

    def _those_to_hear(self) -> "list[_Worker]":
        """The workers that have something to say, or whose time is up; waits for the first."""
        due = [w for w in self._workers if not w.is_ready or w.item is not None]
        if not due:
            return []
        first = min(worker.deadline for worker in due)
        spoke = wait([w.connection for w in due], max(0.0, first - time.monotonic()))
        now = time.monotonic()
        return [w for w in due if w.connection in spoke or now >= w.deadline]

    def _hear(
        self, worker: "_Worker", results: list[Any], waiting: deque[int], crashed: set[int]
    ) -> None:
        item, says, value = worker.item, "late", None
        if worker.connection.poll():
            try:
                says, value = worker.connection.recv()
            except (EOFError, OSError):
                says = "died"
        if not worker.is_ready:
            if says != "ready":
                raise RuntimeError(f"no worker for {self.function}: {value or says}")
            worker.is_ready = True
            return
        worker.item = None
        if says in ("late", "died", "spent"):
            self._discard(worker)
        if item is None:
            return
        if says == "done":
            results[item] = value
        elif says == "died" and item not in crashed:
            # Its starter's thread may have ended, which ends it too: the item is tried once more.
            crashed.add(item)
            waiting.appendleft(item)
        else:
            told = {"late": f"time-out after {self.timeout_s:g} s", "died": "crash"}
            results[item] = Failed(told.get(says) or str(value))

    def _discard(self, worker: "_Worker") -> None:
        self._workers.remove(worker)
        worker.kill()


class _Worker:
    """One process, the item that it has, and until when it may take."""

    def __init__(self, function: str, memory_mb: int, cpu_s: float) -> None:
        self.connection, theirs = Pipe()
        path = os.pathsep.join(place for place in sys.path if place)
        arguments = (theirs.fileno(), os.getpid(), function, memory_mb, cpu_s)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "marco.tasks.workers", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is not for it; what it starts dies with it
            )
        self.is_ready = False
        self.item: int | None = None
        self.deadline = time.monotonic() + START_S

    def take(self, number: int, item: Any, timeout_s: float) -> None:
        self.connection.send(item)
        self.item = number
        self.deadline = time.monotonic() + timeout_s

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()


def _serve(fd: int, parent: int, function: str, memory_mb: int, cpu_s: float) -> None:
    """What a worker does: one reply to each item, until its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        return
    connection = Connection(fd)
    module, _, name = function.partition(":")
    try:
        call = getattr(importlib.import_module(module), name)
    except Exception as error:
        connection.send(("broken", f"{type(error).__name__}: {error}"))
        return
    limit = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(("ready", None))
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        _allow_cpu(cpu_s)
        try:
            reply = ("done", call(item))
        except MemoryError:
            reply = ("spent", f"more than {memory_mb} MiB of memory")
        except Exception as error:
            reply = ("failed", type(error).__name__)
        connection.send(reply)


def _allow_cpu(seconds: float) -> None:
    """As much CPU time from now on, in case the parent cannot look after this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
