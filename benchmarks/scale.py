"""How the search's throughput grows with the engine's replicas: the real driver, simulated engines.

python benchmarks/scale.py --replicas 1 16 64 256 1024

Trees, scheduler and tokenizer are the real ones, and the time that they take is measured. The
engines are simulated on a virtual clock: each of a replica's 96 places answers a request after a
service time drawn from those that `benchmarks/search.py` measured (benchmarks/service_times.json).
While the driver works, the engines go on; when it has nothing to do, the clock jumps to the next
answer. Rates are taken while the second half of the trees is opened, so that neither the start nor
the end of the run counts. The last line is one JSON object: by replicas nodes per second, their
share of so many times the first, the share of the time that the driver is busy, and its memory.
"""

import argparse
import heapq
import json
import random
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from search import MODELS, config_of, repeated, sections

from marco.engines.protocol import Completion, Request, Response
from marco.engines.scripted import draws
from marco.search.scheduler import Placed, Scheduler
from marco.search.start import starter
from marco.search.worker import rest_the_collector
from marco.tasks.registry import make_task
from marco.work import quiet

SERVICE_TIMES = Path(__file__).parent / "service_times.json"
PLACES = 96  # sequences that a replica works on at once, as in the measurement
TREES = 80  # per replica, of which about 32 are open at a time


class SimulatedReplicas:
    """Replicas on a clock of their own, which the driver's own time moves on."""

    honours_seeds = True

    def __init__(self, replicas: int, service_s: Sequence[float]) -> None:
        self.max_in_flight = replicas * PLACES
        self.service_s, self.chance = service_s, random.Random(0)
        self.running: list[tuple[float, int, Request]] = []
        self.numbers = count()
        self.now = self.busy = 0.0
        self.left = time.perf_counter()

    def submit(self, request: Request) -> None:
        due = self.now + self.chance.choice(self.service_s)
        heapq.heappush(self.running, (due, next(self.numbers), request))

    def poll(self) -> Sequence[Response]:
        driver = time.perf_counter() - self.left
        self.now += driver
        self.busy += driver
        if self.running:
            self.now = max(self.now, self.running[0][0])
        ready = []
        while self.running and self.running[0][0] <= self.now:
            ready.append(heapq.heappop(self.running)[2])
        responses = [
            Response(
                key=request.key,
                completions=tuple(
                    Completion(text=str(draws(request, i)), tokens=22, finish="stop")
                    for i in range(request.n)
                ),
            )
            for request in ready
        ]
        self.left = time.perf_counter()  # the engines' answers are not the driver's work
        return responses

    def close(self) -> None:
        self.running.clear()


def simulate(replicas: int, service_s: Sequence[float]) -> dict[str, float]:
    trees = TREES * replicas
    config = config_of("engine=scripted")
    task = make_task(config.task)
    problems = repeated(task, trees)
    start, _ = starter(sections(config), task, models=MODELS)
    engine = SimulatedReplicas(replicas, service_s)
    scheduler = Scheduler(start, {"main": engine})
    nodes, marks = 0, []
    rest_the_collector()

    def opened() -> Iterator[Placed]:
        for i, problem in enumerate(problems, 1):
            yield i, problem
            if i in (trees // 2, trees):
                marks.append((nodes, engine.now, engine.busy))

    def on_response(request: Request, response: Response) -> None:
        nonlocal nodes
        nodes += request.n

    for _ in scheduler.run(opened(), on_response=on_response):
        pass
    (nodes_0, now_0, busy_0), (nodes_1, now_1, busy_1) = marks
    return {
        "nodes_per_s": (nodes_1 - nodes_0) / (now_1 - now_0),
        "driver_busy": (busy_1 - busy_0) / (now_1 - now_0),
        "driver_nodes_per_s": (nodes_1 - nodes_0) / (busy_1 - busy_0),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    replicas = sorted(parser.parse_args().replicas)
    quiet()
    service_s = json.loads(SERVICE_TIMES.read_text(encoding="utf-8"))["seconds"]
    figures = {}
    for n in replicas:
        figures[n] = simulate(n, service_s)
        alone = figures[replicas[0]]["nodes_per_s"] / replicas[0]
        figures[n]["of_linear"] = figures[n]["nodes_per_s"] / alone / n
        print(n, {name: round(value, 3) for name, value in figures[n].items()}, flush=True)
    rounded = {n: {k: round(v, 3) for k, v in f.items()} for n, f in figures.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
