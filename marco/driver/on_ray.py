"""Workers on a Ray cluster, where Ray puts them; they get items as they ask for them.

A worker that dies is started again with its own journal, and gets its own items again, so that
nothing is asked for twice. Where Ray finds no place for it, a worker that has nothing else to do
takes journal and items over. All workers write below one folder, which every machine must see.
"""

import logging
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from marco.driver.report import Report
from marco.driver.scheduler import Placed
from marco.driver.worker import Counts, Found, Starter, Worker, share_out
from marco.errors import UserError
from marco.processes import limit_threads, quiet

TOLD_EVERY_S = 1.0  # what a worker has done, and whether an idle one finds work
ABSENT_S = 60.0  # then the person is told of a worker without a place, and others do its work


class Dispenser:
    """Hands out items, each to one worker, and keeps what the workers tell of themselves.

    `owners` are the workers whose journals know answers for an item, by its id. A worker that
    starts anew gets its own items again; one that is absent for `absent_s` loses them to others.
    """

    def __init__(
        self,
        items: Sequence[Placed],
        owners: Mapping[str, int],
        *,
        workers: int,
        absent_s: float = ABSENT_S,
    ) -> None:
        self.own: defaultdict[int, deque[Placed]] = defaultdict(deque)
        self.queue: deque[Placed] = deque()
        for placed in items:
            owner = owners.get(placed[1].id)
            (self.queue if owner is None else self.own[owner]).append(placed)
        self.unfinished = {place for place, _ in items}
        self.taken: defaultdict[int, dict[int, Placed]] = defaultdict(dict)  # by worker and place
        self.absent = dict.fromkeys(range(workers), time.monotonic())  # since when
        self.absent_s = absent_s
        self.retired: set[int] = set()  # others have their journals
        self.lives: Counter[int] = Counter()
        self.counts: dict[tuple[int, int], Counts] = {}  # by worker and life

    # Called by workers ---------------------------------------------------------------------------

    def arrive(self, worker: int) -> bool:
        """A worker has found a place; False where it is not wanted any more."""
        if worker in self.retired or not self.unfinished:
            return False
        self.absent.pop(worker, None)
        return True

    def begin(self, worker: int) -> None:
        """A worker's engines have started."""
        self.own[worker].extendleft(reversed(self.taken.pop(worker, {}).values()))
        if last := self.counts.get((worker, self.lives[worker])):
            last.running = 0
        self.lives[worker] += 1
        self.tell(worker, Counts())

    def next(self, worker: int) -> Placed | None:
        """An item, or None where none is left."""
        queue = self.own[worker] or self.queue
        if not queue:
            return None
        placed = queue.popleft()
        self.taken[worker][placed[0]] = placed
        return placed

    def take_over(self, worker: int) -> int | None:
        """A worker that has long been absent, whose items this idle one has from now on."""
        for other in self._long_absent():
            if left := [*self.taken.pop(other, {}).values(), *self.own.pop(other, [])]:
                self.retired.add(other)
                del self.absent[other]
                self.own[worker].extend(left)
                return other
        return None

    def tell(self, worker: int, counts: Counts) -> None:
        """What a worker has done so far in this life."""
        self.counts[worker, self.lives[worker]] = counts

    def is_done(self) -> bool:
        return not self.unfinished

    # Called by the process that merges -----------------------------------------------------------

    def finish(self, place: int) -> None:
        """What was found for an item is kept."""
        self.unfinished.discard(place)
        for held in self.taken.values():
            held.pop(place, None)

    def bury(self, worker: int) -> None:
        """A worker has died."""
        self.absent[worker] = time.monotonic()

    def told(self) -> tuple[dict[tuple[int, int], Counts], list[int], set[int]]:
        """What each has done; who has found no place; who is there."""
        there = {worker for worker, _ in self.counts} - self.absent.keys() - self.retired
        return self.counts, [*self._long_absent(), *sorted(self.retired)], there

    def _long_absent(self) -> list[int]:
        now = time.monotonic()
        return [worker for worker, since in self.absent.items() if now - since >= self.absent_s]


class RayWorker:
    """A worker as a Ray actor."""

    def __init__(
        self,
        config: Mapping[str, Any],
        starter: Starter,
        threads: int | None,
        index: int,
        **settings: Any,
    ) -> None:
        self.config, self.starter, self.threads = config, starter, threads
        self.index, self.settings = index, settings

    def walk(self, dispenser: Any) -> Iterator[Found]:
        """What is found, as it is, until all workers have found theirs."""
        import ray

        def ask(method: str, *arguments: Any) -> Any:
            return ray.get(getattr(dispenser, method).remote(self.index, *arguments))

        def items() -> Iterator[Placed]:
            while (placed := ask("next")) is not None:
                yield placed

        def tell(counts: Counts) -> None:
            nonlocal told
            if time.monotonic() - told >= TOLD_EVERY_S:
                told = time.monotonic()
                dispenser.tell.remote(self.index, counts)

        if not ask("arrive"):
            return
        quiet()
        limit_threads(self.threads)
        worker = Worker(self.config, self.starter, index=self.index, wait_s=30.0, **self.settings)
        ask("begin")
        told = time.monotonic()
        while True:
            yield from worker.walk(items(), on_response=tell)
            ask("tell", worker.counts)
            if ray.get(dispenser.is_done.remote()):
                break
            if (absent := ask("take_over")) is not None:
                worker.take_over(absent)
            else:
                time.sleep(TOLD_EVERY_S)
        worker.close()


def walk_on_ray(
    config: Mapping[str, Any],
    starter: Starter,
    items: Sequence[Placed],
    cluster: Mapping[str, Any],
    settings: Mapping[str, Any],
    report: Report,
) -> Iterator[Found]:
    """What is found anywhere, as it is; each once.

    `settings` are those of Worker. Raises UserError where Ray or its cluster is not there,
    and where workers die more often than `cluster.max_restarts` allows.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise UserError("cluster=ray needs Ray: uv pip install -e '.[ray]'") from error
    workers = cluster["workers"]
    owners = share_out(settings["folder"], workers=workers, run=settings["run"])
    _connect(cluster)
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        dispenser: Any = (
            ray.remote(num_cpus=0)(Dispenser)  # type: ignore[attr-defined]
            .options(scheduling_strategy=here)  # it lives as long as this process
            .remote(items, owners, workers=workers)
        )
        actor: Any = ray.remote(
            num_cpus=cluster["cpus_per_worker"], num_gpus=cluster["gpus_per_worker"]
        )(RayWorker)

        def begin(index: int) -> Any:
            worker = actor.remote(
                config, starter, cluster["threads"], index, workers=workers, **settings
            )
            stream = worker.walk.options(num_returns="streaming").remote(dispenser)
            running[stream] = index, worker  # the actor lives as long as somebody holds it

        running: dict[Any, tuple[int, Any]] = {}
        for index in range(workers):
            begin(index)
        watch = _Watch(dispenser, cluster, report)
        for found in merged(running, begin, cluster["max_restarts"], watch):
            yield found
            dispenser.finish.remote(found.place)  # only now: it is kept
    finally:
        ray.shutdown()


class _Watch:
    """Tells the report what the workers have told, and the person of workers that find no place."""

    def __init__(self, dispenser: Any, cluster: Mapping[str, Any], report: Report) -> None:
        self.dispenser, self.cluster, self.report = dispenser, cluster, report
        self.looked = time.monotonic()
        self.missed: set[int] = set()

    def look(self, running: Iterable[int], *, now: bool = False) -> bool:
        """Every so often, or `now`; whether all is done and none of the `running` workers there."""
        import ray

        if not now and time.monotonic() - self.looked < TOLD_EVERY_S:
            return False
        self.looked = time.monotonic()
        told: Any = ray.get(self.dispenser.told.remote())
        counts, absent, there = told
        if counts and self.report.progress is None:
            self.report.begin()
        self.report.on_counts(counts)
        if set(absent) - self.missed:
            print(
                f"  no place for {len(absent)} of {self.cluster['workers']} workers: each wants "
                f"{self.cluster['cpus_per_worker']} CPUs and {self.cluster['gpus_per_worker']} "
                f"GPUs; the cluster has {_resources(ray.cluster_resources())}",
                flush=True,
            )
        self.missed = set(absent)
        is_done: Any = ray.get(self.dispenser.is_done.remote())
        return is_done and not there & set(running)

    def bury(self, worker: int) -> None:
        import ray

        ray.get(self.dispenser.bury.remote(worker))  # before its successor arrives


def _resources(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))


def _connect(cluster: Mapping[str, Any]) -> None:
    import ray

    address = cluster["address"]
    if (address or "").startswith("ray://"):
        raise UserError(
            "cluster.address: run this on a machine of the cluster, with address=auto or "
            "host:port; through ray:// nothing can be told before all is finished"
        )
    here = {"include_dashboard": False, "num_cpus": cluster["workers"] * cluster["cpus_per_worker"]}
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address or "local", logging_level=logging.ERROR, **({} if address else here))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"cluster.address: no Ray cluster at {address}: {reason}") from error


def merged(
    running: dict[Any, tuple[int, Any]], begin: Any, restarts: int, watch: _Watch
) -> Iterator[Found]:
    """What all workers find, as it comes; a place that was told already is told once.

    `running` are the workers by their streams, and `begin` starts one of them again. Ends when all
    streams have, or when all is done and those that are left never found a place.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    told: set[int] = set()
    while running:
        ready, _ = ray.wait(list(running), num_returns=1, timeout=TOLD_EVERY_S)
        if watch.look(index for index, _ in running.values()):
            break
        stream: Any
        for stream in ready:
            index, worker = running[stream]
            try:
                found: Any = ray.get(next(stream))
            except StopIteration:
                del running[stream]
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise UserError(str(error.cause)) from error
                raise
            except RayError as error:  # its process, its node, or what lay there is no more
                del running[stream]
                ray.kill(worker)
                watch.bury(index)
                if not restarts:
                    raise UserError(
                        f"worker {index} died, as others did before: {error}"
                    ) from error
                restarts -= 1
                print(f"  worker {index} died; another takes its journal over", flush=True)
                begin(index)
            else:
                if found.place not in told:
                    told.add(found.place)
                    yield found
    watch.look([], now=True)
