"""The search on a Ray cluster: workers where Ray puts them, problems as they ask for them.

A worker that dies is started again with its own journal, and gets its own problems again, so that
nothing is asked for twice. All workers write below one folder, which every machine must see.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from marco.errors import UserError
from marco.search.report import SearchReport
from marco.search.scheduler import Placed
from marco.search.worker import Grown, SearchWorker
from marco.tasks.registry import TaskConfig, make_task


class Dispenser:
    """Hands out problems, each to one worker; a worker that starts anew gets its own again."""

    def __init__(self, problems: Sequence[Placed]) -> None:
        self.queue = deque(problems)
        self.taken: dict[int, dict[int, Placed]] = {}  # by worker and place
        self.again: dict[int, deque[Placed]] = {}

    def begin(self, worker: int, known: set[str]) -> None:
        """A worker starts, whose journal knows answers for the problems `known`."""
        own = list(self.taken.pop(worker, {}).values())
        own += [placed for placed in self.queue if placed[1].id in known]
        held = {place for place, _ in own}
        self.queue = deque(placed for placed in self.queue if placed[0] not in held)
        self.taken[worker], self.again[worker] = {}, deque(own)

    def next(self, worker: int) -> Placed | None:
        """A problem, or None where none is left."""
        queue = self.again[worker] or self.queue
        if not queue:
            return None
        placed = queue.popleft()
        self.taken[worker][placed[0]] = placed
        return placed

    def finish(self, worker: int, place: int) -> None:
        del self.taken[worker][place]


class RayWorker:
    """A search worker as a Ray actor."""

    def __init__(
        self, config: Mapping[str, Any], task: Mapping[str, Any], threads: int | None, **places: Any
    ) -> None:
        self.config, self.task, self.threads, self.places = config, task, threads, places

    def search(self, dispenser: Any) -> Iterator[Grown]:
        """Trees as they are finished."""
        import ray

        from marco.work import limit_threads, quiet

        quiet()
        limit_threads(self.threads)
        made: Any = make_task(TypeAdapter(TaskConfig).validate_python(self.task))
        worker = SearchWorker(self.config, made, wait_s=30.0, **self.places)
        ray.get(dispenser.begin.remote(worker.index, worker.problems()))

        def problems() -> Iterator[Placed]:
            placed: Any
            while (placed := ray.get(dispenser.next.remote(worker.index))) is not None:
                yield placed

        for grown in worker.search(problems()):
            yield grown
            dispenser.finish.remote(worker.index, grown.place)
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
    except ImportError as error:
        raise UserError("cluster=ray needs Ray: install marco[ray]") from error
    _connect(cluster)
    try:
        dispenser = ray.remote(num_cpus=0)(Dispenser).remote(problems)  # type: ignore[attr-defined]
        actor: Any = ray.remote(
            num_cpus=cluster["cpus_per_worker"], num_gpus=cluster["gpus_per_worker"]
        )(RayWorker)

        def begin(index: int) -> Any:
            worker = actor.remote(
                config, task, cluster["threads"], index=index, workers=cluster["workers"], **places
            )
            stream = worker.search.options(num_returns="streaming").remote(dispenser)
            running[stream] = index, worker  # the actor lives as long as somebody holds it

        running: dict[Any, tuple[int, Any]] = {}
        for index in range(cluster["workers"]):
            begin(index)
        report.begin()
        yield from _merged(running, begin, cluster["max_restarts"])
    finally:
        ray.shutdown()


def _connect(cluster: Mapping[str, Any]) -> None:
    import ray

    address = cluster["address"]
    here = {"include_dashboard": False, "num_cpus": cluster["workers"] * cluster["cpus_per_worker"]}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, **({} if address else here))
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"cluster.address: no Ray cluster at {address}: {reason}") from error


def _merged(running: dict[Any, tuple[int, Any]], begin: Any, restarts: int) -> Iterator[Grown]:
    """What all workers find, as it comes; a place whose tree was told already is told once."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    told: set[int] = set()
    while running:
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        stream: Any
        for stream in ready:
            index, _ = running[stream]
            try:
                grown: Any = ray.get(next(stream))
            except StopIteration:
                del running[stream]
            except RayActorError as error:
                del running[stream]
                if not restarts:
                    raise UserError(
                        f"worker {index} died, as others did before: {error}"
                    ) from error
                restarts -= 1
                print(f"  worker {index} died; another takes its journal over", flush=True)
                begin(index)
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise UserError(str(error.cause)) from error
                raise
            else:
                if grown.place not in told:
                    told.add(grown.place)
                    yield grown
