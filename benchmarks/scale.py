"""How the search's throughput grows with the engine's replicas: the real driver, simulated engines.

python benchmarks/scale.py --replicas 1 16 64 256 1024 --workers 1 4

Trees, scheduler and tokenizer are the real ones, and the time that they take is measured. The
engines are simulated on a virtual clock: each of a replica's 96 places answers a request after a
service time drawn from those that `benchmarks/search.py` measured (benchmarks/service_times.json).
While the driver works, the engines go on; when it has nothing to do, the clock jumps to the next
answer. Rates are taken while the last quarter of the trees is opened, so that neither the start nor
the end of the run counts. With several workers, each drives its share of the replicas on a core of
its own, so one of them is simulated. The HTTP client of `engine=openai` is measured by itself, with
a server that answers at once. The last line is one JSON object: the client's requests per second,
and by workers and replicas nodes per second, their share of so many times the first, the share of
the time that a driver is busy, and its memory.
"""

import argparse
import asyncio
import heapq
import json
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web
from search import MODELS, config_of, repeated, sections

from marco.engines.openai import OpenAIConfig, OpenAIEngine
from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.engines.scripted import draws
from marco.search.scheduler import Placed, Scheduler
from marco.search.start import starter
from marco.search.worker import rest_the_collector
from marco.tasks.registry import make_task
from marco.work import quiet

SERVICE_TIMES = Path(__file__).parent / "service_times.json"
PLACES = 96  # sequences that a replica works on at once, as in the measurement
TREES = 80  # per replica, of which about 48 are open at a time


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

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
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
            if i in (trees * 3 // 4, trees):
                marks.append((nodes, engine.now, engine.busy))

    def on_response(request: Request, response: Response) -> None:
        nonlocal nodes
        nodes += request.n

    for _ in scheduler.run(opened(), on_response=on_response):
        if len(marks) == 2:
            break
    (nodes_0, now_0, busy_0), (nodes_1, now_1, busy_1) = marks
    return {
        "nodes_per_s": (nodes_1 - nodes_0) / (now_1 - now_0),
        "driver_busy": (busy_1 - busy_0) / (now_1 - now_0),
        "driver_nodes_per_s": (nodes_1 - nodes_0) / (busy_1 - busy_0),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


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
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    quiet()
    figures: dict[str, Any] = {"http_requests_per_s": http_requests_per_s()}
    print(figures, flush=True)
    service_s = json.loads(SERVICE_TIMES.read_text(encoding="utf-8"))["seconds"]
    one = 0.0
    for workers in sorted(arguments.workers):
        for replicas in sorted(arguments.replicas):
            if replicas % workers:
                continue
            found = simulate(replicas // workers, service_s)
            found["nodes_per_s"] *= workers
            one = one or found["nodes_per_s"] / replicas
            found["of_linear"] = found["nodes_per_s"] / one / replicas
            rounded = {name: round(value, 3) for name, value in found.items()}
            figures[f"{workers} workers, {replicas} replicas"] = rounded
            print(f"{workers} workers, {replicas} replicas: {rounded}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
