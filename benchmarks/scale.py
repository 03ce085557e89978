"""How the search's throughput grows with the engine's replicas: the real driver, simulated engines.

python benchmarks/scale.py --replicas 1 16 64 256 1024 --workers 1 16

Trees, scheduler, tokenizer and journal are the real ones, and the time that they take is measured.
The engines are simulated on a virtual clock: each of a replica's slots answers a request after a
service time drawn from those that `benchmarks/search.py` measured (benchmarks/service_times.json);
`--replica-nodes-per-s 40` scales them to a replica that writes so many. While the driver works, the
engines go on; when it has nothing to do, the clock jumps to the next answer. What the HTTP client
of `engine=openai` costs a request is measured before, with a server that answers at once, and
counts as the driver's work, too. Rates are taken while the last quarter of the trees is opened, so
that neither the start nor the end of the run counts. With several workers, each drives its share of
the replicas on a core of its own, so one of them is simulated; what the process that merges their
trees can take is measured by itself, with one Ray actor that tells trees as fast as it can.

The last line is one JSON object: requests per second of the HTTP client, trees per second of the
merging process, and by workers and replicas nodes per second, their share of so many times the
first, the share of the time that a driver is busy, and its memory.
"""

import argparse
import asyncio
import heapq
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web
from measures import peak_mb
from search import MODELS, config_of, repeated, sections, sentences

from marco.driver.on_ray import merged
from marco.driver.scheduler import Placed, Scheduler
from marco.driver.worker import Found, rest_the_collector
from marco.engines.journal import Journal, JournaledEngine
from marco.engines.openai import OpenAIConfig, OpenAIEngine
from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.processes import quiet
from marco.search.start import SearchStart
from marco.search.tree import Tree
from marco.tasks.registry import make_task

MEASURED = json.loads((Path(__file__).parent / "service_times.json").read_text(encoding="utf-8"))
SLOTS = MEASURED["max_num_seqs"]  # sequences that a replica works on at once
TREES = 80  # per replica, of which about 48 are open at a time


class SimulatedReplicas:
    """Replicas on a clock of their own, which the driver's own time moves on."""

    honours_seeds = True

    def __init__(self, replicas: int, service_s: Sequence[float], *, client_s: float) -> None:
        self.max_in_flight = replicas * SLOTS
        self.service_s, self.client_s = service_s, client_s
        self.chance = random.Random(0)
        self.running: list[tuple[float, int, Request]] = []
        self.numbers = count()
        self.now = self.busy = self.owed = 0.0
        self.left = time.perf_counter()

    def submit(self, request: Request) -> None:
        due = self.now + self.chance.choice(self.service_s)
        heapq.heappush(self.running, (due, next(self.numbers), request))
        self.owed += self.client_s

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        driver = time.perf_counter() - self.left + self.owed
        self.owed = 0.0
        self.now += driver
        self.busy += driver
        if self.running:
            self.now = max(self.now, self.running[0][0])
        ready = []
        while self.running and self.running[0][0] <= self.now:
            ready.append(heapq.heappop(self.running)[2])
        responses = [_answer(request) for request in ready]
        self.left = time.perf_counter()  # the engines' answers are not the driver's work
        return responses

    def close(self) -> None:
        self.running.clear()


def _answer(request: Request) -> Response:
    texts = (sentences(request, i) for i in range(request.n))
    completions = tuple(Completion(text=text, tokens=22, finish="stop") for text in texts)
    return Response(key=request.key, completions=completions)


def simulate(replicas: int, service_s: Sequence[float], client_s: float) -> dict[str, float]:
    """One worker and its replicas, until all trees are opened."""
    trees = TREES * replicas
    config = config_of("engine=scripted")
    task = make_task(config.task)
    problems = repeated(task, trees)
    start = SearchStart(sections(config), task, models=MODELS)
    engine = SimulatedReplicas(replicas, service_s, client_s=client_s)
    nodes, marks = 0, []
    rest_the_collector()

    def opened() -> Iterator[Placed]:
        for i, problem in enumerate(problems, 1):
            yield i, problem
            if i in (trees * 3 // 4, trees):
                marks.append((nodes, engine.now, engine.busy))

    def on_response(request: Request, response: Response) -> None:
        nonlocal nodes
        nodes += request.n

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "worker-0.sqlite", run="scale")
        scheduler = Scheduler(start, {"main": JournaledEngine(engine, journal)})
        for _, tree in scheduler.run(opened(), on_response=on_response):
            tree.to_json()
            if len(marks) == 2:
                break
        journal.close()
    (nodes_0, now_0, busy_0), (nodes_1, now_1, busy_1) = marks
    return {
        "nodes_per_s": (nodes_1 - nodes_0) / (now_1 - now_0),
        "driver_busy": (busy_1 - busy_0) / (now_1 - now_0),
        "driver_nodes_per_s": (nodes_1 - nodes_0) / (busy_1 - busy_0),
        "peak_mb": peak_mb(),
    }


def merged_trees_per_s(trees: int = 500) -> float:
    """What the process that merges can take: trees from a Ray actor, each kept in the journal."""
    import ray

    lines = [tree.to_json() for tree in _some_trees(20)]

    class Teller:
        def walk(self, number: int) -> Iterator[Found]:
            for i in range(number):
                yield Found(place=i, line=lines[i % len(lines)], status="solved", tokens=0)

    ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    worker: Any = ray.remote(num_cpus=0)(Teller).remote()
    watch: Any = SimpleNamespace(look=lambda *_, **__: False)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "trees.sqlite", run="scale")
        stream = worker.walk.options(num_returns="streaming").remote(trees)
        started = 0.0
        for found in merged({stream: (0, worker)}, None, 0, watch):
            started = started or time.perf_counter()  # the actor has begun
            journal.keep_found(found.place, found.line)
        seconds = time.perf_counter() - started
        journal.close()
    ray.shutdown()
    return (trees - 1) / seconds


def _some_trees(number: int) -> list[Tree]:
    config = config_of("engine=scripted")
    task = make_task(config.task)
    start = SearchStart(sections(config), task, models=MODELS)
    engine = SimulatedReplicas(1, [1.0], client_s=0.0)
    placed = enumerate(task.problems("train")[:number])
    found = Scheduler(start, {"main": engine}).run(placed, on_response=lambda *_: None)
    return [tree for _, tree in found]


def http_requests_per_s(requests: int = 4000, prompt_tokens: int = 800) -> float:
    """What the HTTP client of one process can send and read, with a server that answers at once."""
    port: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=_serve, args=(port,), daemon=True)
    server.start()
    settings = config_of("engine=openai").engine.model_copy(
        update={"urls": [f"http://127.0.0.1:{port.get()}/v1"], "max_num_seqs": 256}
    )
    assert isinstance(settings, OpenAIConfig)
    engine = OpenAIEngine("m", settings)
    sampling = Sampling(temperature=0.7, top_p=1.0, max_tokens=96)
    fixed = {"model": "m", "kind": "thinking", "stop": ("</thinking>",), "sampling": sampling}
    ids = tuple(range(prompt_tokens))
    used, sent, came = time.process_time(), 0, 0
    while came < requests:
        while sent < min(requests, came + engine.max_in_flight):
            key = f"p{sent // 40}/{sent}"
            engine.submit(Request(key=key, problem=key, prompt_ids=ids, n=1, **fixed))
            sent += 1
        came += len(engine.poll())
    used = time.process_time() - used
    engine.close()
    server.terminate()
    return requests / used


def _serve(port: Any) -> None:
    text = "The boxes hold 7 * 6 = 42 pens. With 4 more, 42 + 4 = 46 pens."
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    reply = json.dumps({"choices": [choice], "usage": {"completion_tokens": 22}}).encode()

    async def complete(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=reply, content_type="application/json")

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", complete)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--most", type=int, default=64, help="replicas of a worker, at most")
    parser.add_argument("--replica-nodes-per-s", type=float, help="default: as measured")
    arguments = parser.parse_args()
    quiet()
    service_s = MEASURED["seconds"]
    measured = SLOTS * len(service_s) / sum(service_s)
    scale = measured / (arguments.replica_nodes_per_s or measured)
    service_s = [seconds * scale for seconds in service_s]
    requests_per_s = _apart(http_requests_per_s)
    figures: dict[str, Any] = {
        "replica_nodes_per_s": measured / scale,
        "http_requests_per_s": requests_per_s,
        "merged_trees_per_s": _apart(merged_trees_per_s),
    }
    print(figures, flush=True)
    one = 0.0
    for workers, replicas in product(sorted(arguments.workers), sorted(arguments.replicas)):
        if replicas % workers or replicas // workers > arguments.most:
            continue
        found = _apart(simulate, replicas // workers, service_s, 1 / requests_per_s)
        found["nodes_per_s"] *= workers
        one = one or found["nodes_per_s"] / replicas
        found["of_linear"] = found["nodes_per_s"] / one / replicas
        rounded = {name: round(value, 3) for name, value in found.items()}
        figures[f"{workers} workers, {replicas} replicas"] = rounded
        print(f"{workers} workers, {replicas} replicas: {rounded}", flush=True)
    print(json.dumps(figures))


def _apart(part: Callable[..., Any], *arguments: Any) -> Any:
    """A part in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()


if __name__ == "__main__":
    main()
