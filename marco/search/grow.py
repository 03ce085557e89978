"""Grows the trees of a task's problems with real engines, and writes them down."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache as remember
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.engines.journal import Journal, JournaledEngine
from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Sampling
from marco.engines.registry import EngineConfig, engine_of, make_engine, model_folder
from marco.search.mcts import Search, TreeSearch, Writer
from marco.search.pattern import AnyPattern, MixedPattern, NodeKind, Pattern
from marco.search.report import SearchReport, cost_table, summary
from marco.search.scheduler import Scheduler
from marco.search.settings import SearchConfig
from marco.search.tree import read_trees, write_trees
from marco.tasks.examples import chat
from marco.tasks.problem import Problem
from marco.tasks.registry import Task


def grow(
    config: Mapping[str, Any],
    task: Task,
    problems: Sequence[Problem],
    *,
    run: str,
    out: Path,
    models: Path,
) -> None:
    """Search a tree for every problem and write `trees.jsonl` in the problems' order.

    `config` holds the sections models, engine, kinds, pattern, search and search_seed; `models` is
    the folder where models are kept. What engines answer and which trees are finished is kept in
    `out/journal`, under the name `run`: a search that was broken off goes on from there.
    """
    start, paths = _starter(config, task, problems, models=models)
    (out / "journal").mkdir(exist_ok=True)
    with closing(Journal(out / "journal" / "completions.sqlite", run=run)) as journal:
        known = journal.finished()
        left = [(i, problem) for i, problem in enumerate(problems) if i not in known]
        if left:
            with ExitStack() as stack:
                engines = _start_engines(config, paths, stack, journal)
                scheduler = Scheduler(start, engines)
                report = SearchReport(len(problems), known, scheduler)
                queue = _longest_first(left, config)
                for place, tree in scheduler.run(queue, on_response=report.on_response):
                    journal.keep_tree(place, tree.to_json())
                    report.on_tree(tree)
                report.close()
        write_trees(out / "trees.jsonl", journal.trees())
        print("\n".join(f"  {line}" for line in cost_table(journal.costs())), flush=True)
    print("\n".join(f"  {line}" for line in summary(read_trees(out))), flush=True)


def _starter(
    config: Mapping[str, Any], task: Task, problems: Sequence[Problem], *, models: Path
) -> tuple[Callable[[Problem], Search], dict[str, Path]]:
    """What starts the search of a problem, and the folder of each checkpoint's model."""
    kinds = {name: NodeKind(**kind) for name, kind in config["kinds"].items()}
    pattern: Pattern | MixedPattern = TypeAdapter(AnyPattern).validate_python(config["pattern"])
    settings = SearchConfig(**config["search"])
    seed = config["search_seed"]
    checkpoints = config["models"]["checkpoints"]
    paths = {
        name: model_folder(
            c["model"],
            cache=models,
            weights=engine_of(config["engine"], c["engine"])["name"] == "vllm",  # else a server's
        )
        for name, c in checkpoints.items()
    }
    tokenizers = {path: ChatTokenizer.load(path) for path in set(paths.values())}

    def prompter(path: Path, chosen: Pattern) -> Callable[[Problem], tuple[int, ...]]:
        @remember
        def prompt_ids(problem: Problem) -> tuple[int, ...]:
            examples = task.examples(problem)
            messages = chat(problem.problem, examples, kinds=kinds, pattern=chosen)
            return tokenizers[path].prompt(messages)

        return prompt_ids

    def start(problem: Problem) -> Search:
        chosen = draw_pattern(pattern, seed, problem)
        prompters = {path: prompter(path, chosen) for path in tokenizers}
        writers = {
            kind: Writer(
                model=name,
                prompt_ids=prompters[paths[name]],
                encode=tokenizers[paths[name]].encode,
                sampling=Sampling(
                    temperature=checkpoints[name]["temperature"],
                    top_p=checkpoints[name]["top_p"],
                    max_tokens=settings.node_tokens,
                ),
            )
            for kind, name in config["models"]["roles"].items()
        }
        return TreeSearch(
            problem,
            task=task.name,
            verify=task.verify,
            kinds=kinds,
            pattern=chosen,
            settings=settings,
            writers=writers,
            seed=seed,
        ).run()

    for option in _options(pattern):  # what cannot be written is told before an engine starts
        for path in tokenizers:
            prompter(path, option)(problems[0])
    return start, paths


def _longest_first(
    problems: Sequence[tuple[int, Problem]], config: Mapping[str, Any]
) -> list[tuple[int, Problem]]:
    """Trees that will be large are begun first, so that none of them is left alone at the end."""
    pattern: Pattern | MixedPattern = TypeAdapter(AnyPattern).validate_python(config["pattern"])

    def size(placed: tuple[int, Problem]) -> tuple[int, int]:
        rows = draw_pattern(pattern, config["search_seed"], placed[1]).transitions.values()
        return sum(sum(row.values()) for row in rows), len(placed[1].problem)

    return sorted(problems, key=size, reverse=True)


def draw_pattern(pattern: Pattern | MixedPattern, seed: int, problem: Problem) -> Pattern:
    """The pattern of a problem: drawn by (seed, problem) from a mixed one."""
    if isinstance(pattern, Pattern):
        return pattern
    names = sorted(pattern.options)
    return pattern.options[random.Random(f"{seed}/{problem.id}/pattern").choice(names)]


def _options(pattern: Pattern | MixedPattern) -> list[Pattern]:
    return [pattern] if isinstance(pattern, Pattern) else list(pattern.options.values())


def _start_engines(
    config: Mapping[str, Any], paths: Mapping[str, Path], stack: ExitStack, journal: Journal
) -> dict[str, JournaledEngine]:
    """The engine of each checkpoint; checkpoints of one model and the same settings share one."""
    started: dict[str, JournaledEngine] = {}
    engines = {}
    for name, checkpoint in config["models"]["checkpoints"].items():
        settings = engine_of(config["engine"], checkpoint["engine"])
        identity = json.dumps([str(paths[name]), settings], sort_keys=True)
        if identity not in started:
            checked: Any = TypeAdapter(EngineConfig).validate_python(settings)
            engine = make_engine(checked, paths[name], model=checkpoint["model"])
            started[identity] = JournaledEngine(engine, journal)
            stack.callback(engine.close)
        engines[name] = started[identity]
    return engines
