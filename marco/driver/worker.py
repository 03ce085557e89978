"""A worker: engines and a journal of its own, and items to walk for as they are handed to it."""

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from marco.driver.scheduler import Placed, Scheduler, Walk
from marco.engines.journal import Journal, JournaledEngine
from marco.engines.protocol import Request, Response
from marco.engines.registry import EngineConfig, engine_of, make_engine, share_of


@dataclass
class Counts:
    """What a worker has done: nodes and tokens of its engines, and what its journal answered."""

    nodes: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    replayed_tokens: int = 0
    running: int = 0
    fullness: float = 0.0

    def take(self, request: Request, response: Response) -> None:
        tokens = sum(completion.tokens for completion in response.completions)
        if response.is_replayed:
            self.replayed_tokens += tokens
            return
        self.tokens += tokens
        self.nodes += request.n
        if request.n == 1:  # of several samples, all but the first find the prompt of the first
            self.prompt_tokens += len(request.prompt_ids)
            self.cached_tokens += response.cached_tokens


class Finding(Protocol):
    """What a walk returns: a tree, or the answers to a problem."""

    status: str
    usage: Mapping[str, int]

    def to_json(self) -> str:
        """It, in one line."""
        ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a walk returned, as its line, and the generated tokens it cost."""

    place: int
    line: str
    status: str
    tokens: int


# From a config and the folder of models: what begins the walk for an item, and the folder of each
# checkpoint's model. It is sent to workers elsewhere, so it is a function of a module.
Starter = Callable[[Mapping[str, Any], Path], tuple[Callable[[Any], Walk], Mapping[str, Path]]]


class Worker:
    """Walks with engines that it starts itself; its journal is in `folder`.

    `config` holds the sections models, engine and search_seed, and what `starter` reads. It is one
    of `workers` that share the servers of engines elsewhere.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        starter: Starter,
        *,
        index: int,
        run: str,
        folder: Path,
        models: Path,
        workers: int = 1,
        wait_s: float = 0.0,
    ) -> None:
        self.counts = Counts()
        self.folder, self.index, self.workers = folder, index, workers
        self.stack = ExitStack()
        try:
            self.journal = Journal(_journal(folder, index), run=run, wait_s=wait_s)
            self.stack.callback(self.journal.close)
            self.start, paths = starter(config, models)
            self.engines = self._start_engines(config, paths)
            rest_the_collector()
        except BaseException:
            self.stack.close()
            raise

    def walk(
        self, items: Iterable[Placed], *, on_response: Callable[[Counts], None] = lambda _: None
    ) -> Iterator[Found]:
        """What is found, as it is; `on_response` is told the counts again and again."""
        scheduler = Scheduler(self.start, self.engines)

        def take(request: Request, response: Response) -> None:
            self.counts.take(request, response)
            self.counts.running, self.counts.fullness = scheduler.open, scheduler.fullness
            on_response(self.counts)

        found: Finding
        for place, found in scheduler.run(items, on_response=take):
            self.counts.running = scheduler.open
            yield Found(
                place=place,
                line=found.to_json(),
                status=found.status,
                tokens=found.usage["completion_tokens"],
            )

    def take_over(self, index: int) -> None:
        """Answer from the journal of a worker that is no more, too."""
        path = _journal(self.folder, index)
        if path.exists():
            self.journal.take_over(path)
            for engine in self.engines.values():
                engine.look_again()

    def close(self) -> None:
        """End the engines, and fold the journals' logs in."""
        self.stack.close()

    def _start_engines(
        self, config: Mapping[str, Any], paths: Mapping[str, Path]
    ) -> dict[str, JournaledEngine]:
        """Each checkpoint's engine; checkpoints of one model and the same settings share one."""
        started: dict[tuple[Path, str], JournaledEngine] = {}
        engines = {}
        for name, checkpoint in config["models"]["checkpoints"].items():
            settings = engine_of(config["engine"], checkpoint["engine"])
            settings = share_of(settings, index=self.index, workers=self.workers)
            identity = (paths[name], repr(sorted(settings.items())))
            if identity not in started:
                checked: Any = TypeAdapter(EngineConfig).validate_python(settings)
                engine = make_engine(
                    checked, paths[name], model=checkpoint["model"], seed=config["search_seed"]
                )
                self.stack.callback(engine.close)
                started[identity] = JournaledEngine(engine, self.journal)
            engines[name] = started[identity]
        draws = any(c["temperature"] for c in config["models"]["checkpoints"].values())
        if draws and self.index == 0 and not all(e.honours_seeds for e in engines.values()):
            print("  no seeds with these engines: only the journal repeats this run", flush=True)
        return engines


def share_out(folder: Path, *, workers: int, run: str) -> dict[str, int]:
    """The worker of each problem that a journal knows answers for.

    A problem's answers are in one journal. Those of workers that are no more, since a run went on
    with fewer, are taken over by the others.
    """
    owners: dict[str, int] = {}
    for index, path in _journals(folder).items():
        if index >= workers:
            with closing(Journal(_journal(folder, index % workers), run=run)) as journal:
                journal.take_over(path)
    for index, path in _journals(folder).items():
        with closing(Journal(path, run=run)) as journal:
            owners |= dict.fromkeys(journal.problems(), index)
    return owners


def costs(folder: Path, *, run: str) -> list[tuple[str, str, int, int, int, int]]:
    """(model, kind, requests, prompt tokens, of them cached, generated), over all journals."""
    sums: dict[tuple[str, str], list[int]] = {}
    for path in _journals(folder).values():
        with closing(Journal(path, run=run)) as journal:
            for model, kind, *figures in journal.costs():
                held = sums.setdefault((model, kind), [0] * len(figures))
                sums[model, kind] = [a + b for a, b in zip(held, figures, strict=True)]
    return [(*names, *figures) for names, figures in sorted(sums.items())]  # type: ignore[misc]


def rest_the_collector() -> None:
    """Trees hold no cycles, but looking through the open ones for some took a third of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _journal(folder: Path, index: int) -> Path:
    return folder / f"worker-{index}.sqlite"


def _journals(folder: Path) -> dict[int, Path]:
    """By worker; what a person has put beside them is none."""
    names = [re.fullmatch(r"worker-(\d+)\.sqlite", path.name) for path in folder.iterdir()]
    return {i: _journal(folder, i) for i in sorted(int(name[1]) for name in names if name)}
