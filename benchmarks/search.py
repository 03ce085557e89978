"""The search against the engine's own speed, the released code's schedule, and plain sampling.

python benchmarks/search.py --problems 240 --few 24

All on the embedded default and its 240 problems, in one process, with one engine whose prefix cache
is emptied between the parts. `search` notes its requests; `replay` then hands the very same
requests to the engine at once, without waiting for each other's answers: the upper bound. `one at a
time` is the released code's schedule, on the first 12 of the problems: four before the search, four
between it and the replay, four after, since a shared machine is not always as fast. The chains
of `distinct`, `released` and `plain` (`search=plain`: whole chains, as many tokens as `distinct`,
problem by problem) are of the first few; so few do not fill the engine as a long run does, and
`released` keeps one request a tree in flight, so chains per minute compare schedules as they are,
not methods. The driver is measured with an engine that answers at once. The last line is one JSON
object.

`--keep-service-times` writes what `benchmarks/scale.py` reads: how long a request took in the full
engine.
"""

import argparse
import json
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from measures import apart, peak_mb, rounded, status_mb

from marco.config import ROOT, Config, check
from marco.driver.run import FINDINGS
from marco.driver.scheduler import Scheduler
from marco.driver.worker import Worker, rest_the_collector
from marco.engines.journal import Journal, JournaledEngine
from marco.engines.protocol import Engine, Request, Response
from marco.engines.registry import make_engine, model_folder
from marco.engines.scripted import ScriptedEngine, draws
from marco.engines.vllm import VLLMEngine
from marco.processes import quiet
from marco.search.start import SearchStart, longest_first, search_starter
from marco.search.tree import Tree
from marco.tasks.problem import Problem
from marco.tasks.registry import make_task
from marco.tasks.task import Task

MODELS = ROOT / "outputs" / "models"
Yield = tuple[int, int]  # distinct correct chains of a problem, and the tokens they cost


class Noting:
    """An engine that notes its requests, and may take fewer at once."""

    honours_seeds = False

    def __init__(self, engine: Engine, *, max_in_flight: int | None = None) -> None:
        self.engine = engine
        self.max_in_flight = max_in_flight or engine.max_in_flight
        self.requests: list[Request] = []
        self.submitted: dict[str, float] = {}
        self.seconds: list[float] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self.submitted[request.key] = time.perf_counter()
        self.engine.submit(request)

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        responses = self.engine.poll(wait_s)
        for response in responses:
            self.seconds.append(time.perf_counter() - self.submitted.pop(response.key))
        return responses

    def close(self) -> None:
        pass


class Meter:
    """Tokens, requests and cached tokens of the responses, over the time."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.tokens = self.prompt = self.cached = self.requests = 0
        self.seconds = 0.0

    def __call__(self, request: Request, response: Response) -> None:
        self.tokens += sum(c.tokens for c in response.completions)
        if request.n == 1:  # of several samples, all but the first find the prompt of the first
            self.prompt += len(request.prompt_ids)
            self.cached += response.cached_tokens
        self.requests += 1
        self.seconds = time.perf_counter() - self.started

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    def line(self, name: str) -> str:
        return (
            f"{name}: {self.tokens:,} tokens in {self.seconds:.1f} s = {self.rate:.0f} tokens/s, "
            f"{self.requests} requests, {self.cached / max(self.prompt, 1):.1%} of prompts cached"
        )


def config_of(*overrides: str) -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("generate", overrides=list(overrides), return_hydra_config=True)
        choices = cfg.hydra.runtime.choices
        cfg = compose("generate", overrides=list(overrides))
    return check(cfg, choices)


def sections(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def repeated(task: Task, number: int) -> list[Problem]:
    """So many training problems: the task's own, over and over under other names."""
    own = task.problems("train")
    return [replace(own[i % len(own)], id=f"{own[i % len(own)].id}-{i}") for i in range(number)]


def searched(
    config: Config,
    task: Task,
    problems: Sequence[Problem],
    engine: Engine,
    *,
    budgets: Mapping[str, int] | None = None,
) -> tuple[list[Tree], Meter]:
    """The search as `generate.py` makes it, journal and all; plain sampling by `budgets`."""
    values = sections(config)
    values["budgets"] = budgets or {}
    start = SearchStart(values, task, models=MODELS)
    with tempfile.TemporaryDirectory() as folder:
        completions, finished = (
            Journal(Path(folder) / f"{name}.sqlite", run="benchmark")
            for name in ("completions", "trees")
        )
        journaled = JournaledEngine(engine, completions)
        scheduler = Scheduler(start, dict.fromkeys(values["models"]["checkpoints"], journaled))
        meter, trees = Meter(), []
        queue = longest_first(list(enumerate(problems)), values)
        for place, tree in scheduler.run(queue, on_response=meter):
            finished.keep_found(place, tree.to_json())
            trees.append(tree)
        completions.close()
        finished.close()
    return trees, meter


def replayed(requests: Sequence[Request], engine: Engine) -> Meter:
    """All requests at once, in the order in which the search asked."""
    by_key = {request.key: request for request in requests}
    meter = Meter()
    for request in requests:
        engine.submit(request)
    while meter.requests < len(requests):
        for response in engine.poll():
            meter(by_key[response.key], response)
    return meter


def chains(tree: Tree) -> Yield:
    """Distinct correct chains of a tree, by their text, whatever the search counted."""
    right = [node.id for node in tree.nodes if node.verdict == "correct"]
    texts = {"".join(node.text for node in tree.path(leaf)) for leaf in right}
    return len(texts), tree.usage["completion_tokens"]


def per_1k(yields: Sequence[Yield]) -> float:
    return 1000 * sum(n for n, _ in yields) / max(sum(tokens for _, tokens in yields), 1)


def interval(figure: Callable[[Sequence[int]], float], problems: int) -> list[float]:
    """The middle 95 % of a figure over 2,000 draws of as many problems with replacement."""
    chance = random.Random(0)
    drawn = sorted(figure(chance.choices(range(problems), k=problems)) for _ in range(2000))
    return [drawn[50], drawn[-51]]


def sentences(request: Request, sample: int) -> str:
    """A thought as long as a model's, and unlike any other."""
    if request.kind == "answer":
        return draws(request, sample)
    number = zlib.crc32(f"{request.key}/{sample}".encode())  # cheap: not the driver's own work
    a, b, c = (10 + number // 990**i % 990 for i in range(3))
    return f" The boxes hold {a} * {b} = {c} pens. Without {a}, {c} - {a} = {b} pens."


def driver(problems: int) -> dict[str, float]:
    """Nodes per second of one core with an engine that answers at once, and memory.

    That is the whole worker, with the journal's commits; the search alone is told beside it.
    """
    config = config_of("engine=scripted", "engine.max_num_seqs=96")
    task = make_task(config.task)
    values = sections(config)
    before = status_mb("self", "VmRSS")
    many = repeated(task, problems)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(
            values, search_starter, index=0, run="driver", folder=Path(folder), models=MODELS
        )
        engine = worker.engines["main"].engine
        assert isinstance(engine, ScriptedEngine)
        trees = Journal(Path(folder) / FINDINGS, run="driver", is_remade=True)
        engine.script = sentences
        started, used = time.perf_counter(), time.process_time()
        for found in worker.walk(enumerate(many)):
            trees.keep_found(found.place, found.line)
            engine.requests.clear()  # which it keeps for tests
        used, nodes = time.process_time() - used, worker.counts.nodes
        seconds = time.perf_counter() - started
        mb = peak_mb() - before
        worker.close()
        trees.close()
    start = SearchStart(values, task, models=MODELS)  # anew: its tokenizer has kept nothing
    bare, bare_nodes = time.process_time(), 0

    def count(request: Request, _: Response) -> None:
        nonlocal bare_nodes
        bare_nodes += request.n

    some = enumerate(many[: problems // 5])
    for _ in Scheduler(start, {"main": engine}).run(some, on_response=count):
        engine.requests.clear()
    return {
        "nodes_per_s": nodes / used,
        "nodes_per_s_of_wall_time": nodes / seconds,
        "nodes_per_s_without_journal": bare_nodes / (time.process_time() - bare),
        "mb": mb,
        "nodes": nodes,
    }


def parts(problems: int, few: int, *, keep_service_times: bool) -> Iterator[tuple[str, Any]]:
    """The figures of the engine's part, by name, as they come."""
    config = config_of(f"task.train={problems}")
    task = make_task(config.task)
    many = task.problems("train")
    engine = make_engine(config.engine, model_folder("embedded", cache=MODELS), model="embedded")
    assert isinstance(engine, VLLMEngine)
    rest_the_collector()  # as a worker does

    def run(name: str, part: Callable[[], Any]) -> Any:
        engine.engine.reset_prefix_cache()
        result = part()
        print(result[-1].line(name) if isinstance(result, tuple) else result.line(name), flush=True)
        return result

    run("warm-up", lambda: searched(config, task, many[:4], engine))
    single = config_of(f"task.train={problems}", "search.wave=1")

    def one_at_a_time(part: int) -> Meter:
        alone = Noting(engine, max_in_flight=1)
        return run("one at a time", lambda: searched(single, task, many[part:12:3], alone))[1]

    alone = [one_at_a_time(0)]
    noting = Noting(engine)
    _, search = run("search", lambda: searched(config, task, many, noting))
    alone.append(one_at_a_time(1))
    replay = run("replay", lambda: replayed(noting.requests, engine))
    alone.append(one_at_a_time(2))
    if keep_service_times:
        _keep_service_times(noting.seconds, engine.max_in_flight)
    released = sum(meter.tokens for meter in alone) / sum(meter.seconds for meter in alone)
    yield "search_tokens_per_s", search.rate
    yield "replay_tokens_per_s", replay.rate
    yield "released_tokens_per_s", released
    yield "released_tokens_per_s_by_part", [meter.rate for meter in alone]
    yield "search_over_replay", search.rate / replay.rate
    yield "search_over_released", search.rate / released
    yield "prefix_cache_hit_rate", search.cached / search.prompt
    yields: dict[str, list[Yield]] = {}
    per_minute = {}
    budgets: dict[str, int] = {}
    for name in ("distinct", "released", "plain"):
        of_mode = config_of(f"task.train={problems}", f"search={name}")
        trees, meter = run(
            f"chains, {name}",
            lambda c=of_mode, b=budgets: searched(c, task, many[:few], engine, budgets=b),
        )
        if name == "distinct":
            budgets = {tree.id: tree.usage["completion_tokens"] for tree in trees}
        yields[name] = [chains(tree) for tree in sorted(trees, key=lambda tree: tree.id)]
        per_minute[name] = 60 * sum(n for n, _ in yields[name]) / meter.seconds
    yield "chains_per_1k_tokens", {name: per_1k(of_mode) for name, of_mode in yields.items()}
    yield (
        "chains_per_1k_tokens_interval",
        {
            name: interval(lambda drawn, y=of_mode: per_1k([y[i] for i in drawn]), few)
            for name, of_mode in yields.items()
        },
    )

    def ratio(drawn: Sequence[int]) -> float:
        ours, theirs = (
            per_1k([yields[name][i] for i in drawn]) for name in ("distinct", "released")
        )
        return ours / max(theirs, 1e-9)

    yield "distinct_over_released", [ratio(range(few)), *interval(ratio, few)]
    yield "chains_per_minute", per_minute


def _keep_service_times(seconds: Sequence[float], max_num_seqs: int) -> None:
    """500 quantiles of the time that a request took in the full engine, for benchmarks/scale.py."""
    ordered = sorted(seconds)
    taken = [ordered[int((i + 0.5) * len(ordered) / 500)] for i in range(500)]
    figures = {"max_num_seqs": max_num_seqs, "requests": len(ordered)}
    text = json.dumps(figures | {"seconds": [round(s, 3) for s in taken]})
    Path(__file__).with_name("service_times.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=240)
    parser.add_argument("--few", type=int, default=24, help="problems of the chains")
    parser.add_argument("--keep-service-times", action="store_true")
    parser.add_argument("--driver", type=int, help="the driver's part alone, on so many problems")
    arguments = parser.parse_args()
    quiet()
    if arguments.driver:
        print(json.dumps(driver(arguments.driver)))
        return
    keep = arguments.keep_service_times
    figures = dict(parts(arguments.problems, arguments.few, keep_service_times=keep))
    of_driver = apart(__file__, "--driver", "10000")
    figures["driver_nodes_per_s"] = of_driver["nodes_per_s"]
    figures["driver"] = of_driver
    figures["driver_mb_per_10k_problems"] = of_driver["mb"]
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
