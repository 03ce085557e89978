"""The search on a Ray cluster: workers where Ray puts them, problems as they ask for them.

A worker that dies is started again with its own journal, and gets its own problems again, so that
nothing is asked for twice. All workers write below one folder, which every machine must see.
"""

import logging
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from marco.errors import UserError
from marco.search.report import SearchReport
from marco.search.scheduler import Placed
from marco.search.worker import Counts, Grown, SearchWorker, share_out
from marco.tasks.registry import TaskConfig, make_task

TOLD_EVERY_S = 1.0  # what a worker has done
SLOW_START_S = 120.0  # then the person is told which workers have not begun


class Dispenser:
    """Hands out problems, each to one worker, and keeps what the workers tell of themselves.

    `owners` are the workers whose journals know answers for a problem, by its id. A worker that
    starts anew gets its own problems again.
    """

    def __init__(self, problems: Sequence[Placed], owners: Mapping[str, int]) -> None:
        self.own: defaultdict[int, deque[Placed]] = defaultdict(deque)
        self.queue: deque[Placed] = deque()
        for placed in problems:
            owner = owners.get(placed[1].id)
            (self.queue if owner is None else self.own[owner]).append(placed)
        self.taken: defaultdict[int, dict[int, Placed]] = defaultdict(dict)  # by worker and place
        self.lives: Counter[int] = Counter()
        self.counts: dict[tuple[int, int], Counts] = {}  # by worker and life

    def begin(self, worker: int) -> None:
        """A worker's engines have started."""
        self.own[worker].extendleft(reversed(self.taken.pop(worker, {}).values()))
        if last := self.counts.get((worker, self.lives[worker])):
            last.running = 0
        self.lives[worker] += 1
        self.tell(worker, Counts())

    def next(self, worker: int) -> Placed | None:
        """A problem, or None where none is left."""
        queue = self.own[worker] or self.queue
        if not queue:
            return None
        placed = queue.popleft()
        self.taken[worker][placed[0]] = placed
        return placed

    def finish(self, worker: int, place: int) -> None:
        del self.taken[worker][place]

    def tell(self, worker: int, counts: Counts) -> None:
        """What a worker has done so far in this life."""
        self.counts[worker, self.lives[worker]] = counts

    def told(self) -> dict[tuple[int, int], Counts]:
        return self.counts


class RayWorker:
    """A search worker as a Ray actor."""

    def __init__(
        self,
        config: Mapping[str, Any],
        task: Mapping[str, Any],
        threads: int | None,
        index: int,
        **places: Any,
    ) -> None:
        self.config, self.task, self.threads = config, task, threads
        self.index, self.places = index, places

    def search(self, dispenser: Any) -> Iterator[Grown]:
        """Trees as they are finished."""
        import ray

        from marco.work import limit_threads, quiet

        quiet()
        limit_threads(self.threads)
        made: Any = make_task(TypeAdapter(TaskConfig).validate_python(self.task))
        worker = SearchWorker(self.config, made, index=self.index, wait_s=30.0, **self.places)
        ray.get(dispenser.begin.remote(self.index))
        told = time.monotonic()

        def problems() -> Iterator[Placed]:
            placed: Any
            while (placed := ray.get(dispenser.next.remote(self.index))) is not None:
                yield placed

        def tell(counts: Counts) -> None:
            nonlocal told
            if time.monotonic() - told >= TOLD_EVERY_S:
                told = time.monotonic()
                dispenser.tell.remote(self.index, counts)

        for grown in worker.search(problems(), on_response=tell):
            yield grown
            dispenser.finish.remote(self.index, grown.place)
        ray.get(dispenser.tell.remote(self.index, worker.counts))
        worker.close()


def search_on_ray(
    config: Mapping[str, Any],
    task: Mapping[str, Any],
    problems: Sequence[Placed],
    cluster: Mapping[str, Any],
    places: Mapping[str, Any],
    report: SearchReport,
) -> Iterator[Grown]:
    """Trees as they are finished anywhere; each once.

    Raises UserError where Ray or its cluster is not there, and where workers die more often than
    `cluster.max_restarts` allows.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise UserError("cluster=ray needs Ray: install marco[ray]") from error
    owners = share_out(places["folder"], workers=cluster["workers"], run=places["run"])
    _connect(cluster)
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        dispenser = (
            ray.remote(num_cpus=0)(Dispenser)  # type: ignore[attr-defined]
            .options(scheduling_strategy=here)  # it lives as long as this process
            .remote(problems, owners)
        )
        actor: Any = ray.remote(
            num_cpus=cluster["cpus_per_worker"], num_gpus=cluster["gpus_per_worker"]
        )(RayWorker)

        def begin(index: int) -> Any:
            worker = actor.remote(config, task, cluster["threads"], index, **places)
            stream = worker.search.options(num_returns="streaming").remote(dispenser)
            running[stream] = index, worker  # the actor lives as long as somebody holds it

        running: dict[Any, tuple[int, Any]] = {}
        for index in range(cluster["workers"]):
            begin(index)
        watch = _Watch(dispenser, cluster, report)
        yield from merged(running, begin, cluster["max_restarts"], watch)
    finally:
        ray.shutdown()


class _Watch:
    """Tells the report what the workers have told, and the person of workers that find no place."""

    def __init__(self, dispenser: Any, cluster: Mapping[str, Any], report: SearchReport) -> None:
        self.dispenser, self.cluster, self.report = dispenser, cluster, report
        self.started = self.looked = time.monotonic()
        self.is_told = False

    def look(self, *, now: bool = False) -> None:
        """Every so often, or `now`."""
        import ray

        if not now and time.monotonic() - self.looked < TOLD_EVERY_S:
            return
        self.looked = time.monotonic()
        counts: Any = ray.get(self.dispenser.told.remote())
        if counts and self.report.progress is None:
            self.report.begin()
        self.report.on_counts(counts)
        begun = len({worker for worker, _ in counts})
        if begun < self.cluster["workers"] and not self.is_told and self._waits_long():
            self.is_told = True
            print(
                f"  {begun} of {self.cluster['workers']} workers have begun: each wants "
                f"{self.cluster['cpus_per_worker']} CPUs and {self.cluster['gpus_per_worker']} "
                f"GPUs; the cluster has {_resources(ray.cluster_resources())}",
                flush=True,
            )

    def _waits_long(self) -> bool:
        return time.monotonic() - self.started > SLOW_START_S


def _resources(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))


def _connect(cluster: Mapping[str, Any]) -> None:
    import ray

    address = cluster["address"]
    here = {"include_dashboard": False, "num_cpus": cluster["workers"] * cluster["cpus_per_worker"]}
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address or "local", logging_level=logging.ERROR, **({} if address else here))
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"cluster.address: no Ray cluster at {address}: {reason}") from error


def merged(
    running: dict[Any, tuple[int, Any]], begin: Any, restarts: int, watch: _Watch
) -> Iterator[Grown]:
    """What all workers find, as it comes; a place whose tree was told already is told once."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    told: set[int] = set()
    while running:
        ready, _ = ray.wait(list(running), num_returns=1, timeout=TOLD_EVERY_S)
        watch.look()
        stream: Any
        for stream in ready:
            index, worker = running[stream]
            try:
                grown: Any = ray.get(next(stream))
            except StopIteration:
                del running[stream]
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise UserError(str(error.cause)) from error
                raise
            except RayError as error:  # its process, its node, or what lay there is no more
                del running[stream]
                ray.kill(worker)
                if not restarts:
                    raise UserError(
                        f"worker {index} died, as others did before: {error}"
                    ) from error
                restarts -= 1
                print(f"  worker {index} died; another takes its journal over", flush=True)
                begin(index)
            else:
                if grown.place not in told:
                    told.add(grown.place)
                    yield grown
    watch.look(now=True)
