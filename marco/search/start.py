"""From the config to the search of a problem: its pattern, its writers, their prompts."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache as remember
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Sampling
from marco.engines.registry import engine_of, model_folder
from marco.search.mcts import Search, TreeSearch, Writer
from marco.search.pattern import AnyPattern, MixedPattern, NodeKind, Pattern
from marco.search.settings import SearchConfig
from marco.tasks.examples import chat
from marco.tasks.problem import Problem
from marco.tasks.registry import Task


def starter(
    config: Mapping[str, Any], task: Task, *, models: Path
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
            prompter(path, option)(task.problems("train")[0])
    return start, paths


def longest_first(
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
