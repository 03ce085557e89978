import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from marco.tasks.workers import Failed, Workers

HANGS = "__import__('time').sleep(10**6)"
SPINS = "sum(iter(int, 1))"  # in C, with the interpreter's lock
SWAPS = "bytearray(10**12)"
DIES = "__import__('os').kill(__import__('os').getpid(), 9)"
OVERFLOWS = "(lambda f: f(f))(lambda f: f(f))"


def calculators(**changes: float) -> Workers:
    """A function that misbehaves as it is told: `eval`, on texts of this file alone."""
    values = {"processes": 2, "timeout_s": 2, "memory_mb": 512} | changes
    return Workers("builtins:eval", **values)  # type: ignore[arg-type]


def test_results_come_in_order() -> None:
    workers = calculators(timeout_s=60)
    assert workers.map([f"{i} ** 2" for i in range(500)]) == [i * i for i in range(500)]
    assert workers.map([]) == []
    workers.close()


def test_only_the_culprit_fails() -> None:
    workers = calculators()
    items = ["1", HANGS, "2", SWAPS, "3", DIES, "4", "1/0", OVERFLOWS, SPINS, "5"]
    assert workers.map(items) == [
        1,
        Failed("time-out after 2 s"),
        2,
        Failed("more than 512 MiB of memory"),
        3,
        Failed("crash"),
        4,
        Failed("ZeroDivisionError"),
        Failed("RecursionError"),
        Failed("time-out after 2 s"),
        5,
    ]
    assert workers.map(["6 * 7"]) == [42]
    workers.close()


def test_memory_that_is_taken_slowly_is_bounded_too() -> None:
    workers = calculators(timeout_s=60, memory_mb=256)
    (failed,) = workers.map(["[bytearray(10**6) for _ in range(10**6)]"])
    assert failed == Failed("more than 256 MiB of memory")
    workers.close()


def test_cpu_time_is_bounded_where_nobody_looks_after_the_worker() -> None:
    workers = calculators(timeout_s=30)
    limits = "(lambda r: (r.getrlimit(r.RLIMIT_CPU)[0], r.getrusage(r.RUSAGE_SELF)[:2]))"
    ((soft, used),) = workers.map([f"{limits}(__import__('resource'))"])
    assert 30 < soft - sum(used) <= 32
    workers.close()


def test_nothing_is_left_behind() -> None:
    workers = calculators(timeout_s=0.05)
    before = set(psutil.Process().children())
    files = psutil.Process().num_fds()
    for _ in range(5):
        assert workers.map([HANGS] * 4) == [Failed("time-out after 0.05 s")] * 4
    workers.close()
    assert set(psutil.Process().children()) == before
    assert psutil.Process().num_fds() == files


@pytest.mark.torture
def test_a_hundred_time_outs_leave_nothing_behind() -> None:
    workers = calculators(timeout_s=0.05)
    before = set(psutil.Process().children())
    files = psutil.Process().num_fds()
    assert set(workers.map([HANGS, SPINS] * 50)) == {Failed("time-out after 0.05 s")}
    workers.close()
    assert set(psutil.Process().children()) == before
    assert psutil.Process().num_fds() == files


def test_a_worker_is_a_clean_process() -> None:
    """No torch, no inputs and outputs of this process, no fork of it."""
    workers = calculators(timeout_s=60, processes=1)
    modules, group, files = workers.map(
        [
            "sorted(__import__('sys').modules)",
            "__import__('os').getpgid(0)",
            "[__import__('os').readlink(f'/proc/self/fd/{i}') for i in range(3)]",
        ]
    )
    assert "marco" in modules and not {"torch", "pytest"} & set(modules)
    assert group != os.getpgid(0)
    assert files == ["/dev/null"] * 3
    workers.close()


def test_an_interrupted_map_does_not_answer_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = calculators(timeout_s=60)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workers, "_hear", interrupt)
        with pytest.raises(KeyboardInterrupt):
            workers.map(["1", "2", "3"])
    assert workers.map(["4", "5"]) == [4, 5]
    workers.close()


def test_a_killed_worker_is_replaced() -> None:
    workers = calculators(timeout_s=60, processes=1)
    (first,) = workers.map(["__import__('os').getpid()"])
    os.kill(first, signal.SIGKILL)
    (second,) = workers.map(["__import__('os').getpid()"])
    assert second != first
    workers.close()


def test_threads_share_the_workers() -> None:
    workers = calculators(timeout_s=60)
    results: dict[int, list[int]] = {}

    def work(n: int) -> None:
        results[n] = workers.map([f"{n} + {i}" for i in range(20)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [n + i for i in range(20)] for n in range(4)}
    assert workers.map(["1"]) == [1]  # although the thread that started them has ended
    workers.close()


def test_a_fork_has_workers_of_its_own() -> None:
    workers = calculators(timeout_s=60, processes=1)
    (ours,) = workers.map(["__import__('os').getpid()"])
    child = os.fork()
    if child == 0:
        try:
            theirs = workers.map(["__import__('os').getpid()"])
            workers.close()
            os._exit(0 if theirs != [ours] else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert workers.map(["__import__('os').getpid()"]) == [ours]
    workers.close()


def test_a_function_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no worker for marco.tasks.nowhere:f: ModuleNotFound"):
        Workers("marco.tasks.nowhere:f", processes=1, timeout_s=1, memory_mb=512).map([1])


SCRIPT = """
import sys
from marco.tasks.workers import Workers
workers = Workers("builtins:eval", processes=2, timeout_s=600, memory_mb=512)
print(*workers.map(["__import__('os').getpid()"] * 50), flush=True)
{then}
"""


@pytest.mark.parametrize(
    "then", ["sys.stdin.read()", f"workers.map([{HANGS!r}])", "", "raise SystemExit(3)"]
)
def test_workers_end_with_their_process(then: str) -> None:
    """Killed while they wait or work, or when it ends by itself."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(then=then)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        watched = []
        for pid in set(map(int, process.stdout.readline().split())):
            with suppress(ProcessLookupError):  # it has ended already
                watched.append(os.pidfd_open(pid))
        if "stdin" in then or "map" in then:
            process.kill()
        for descriptor in watched:
            assert select.select([descriptor], [], [], 60)[0]
            os.close(descriptor)
