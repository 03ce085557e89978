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
from marco.search.pattern import ANSWER, AnyPattern, MixedPattern, NodeKind, Pattern
from marco.search.plain import sample_chains
from marco.search.settings import SearchConfig
from marco.tasks.examples import chat
from marco.tasks.problem import Problem
from marco.tasks.registry import TaskConfig, make_task
from marco.tasks.task import Task
from marco.tasks.verdict import Verdict


def search_starter(
    config: Mapping[str, Any], models: Path
) -> tuple[Callable[[Problem], Search], Mapping[str, Path]]:
    """What begins the search of a problem, and the folder of each checkpoint's model.

    UserError for a pattern that the task's worked examples cannot be written in, before an engine
    starts.
    """
    task = make_task(TypeAdapter(TaskConfig).validate_python(config["task"]))
    begin = SearchStart(config, task, models=models)
    begin.write_prompts(task.problems("train")[0])
    return begin, begin.paths


class SearchStart:
    """Begins the search of a problem; `paths` are the folders of the checkpoints' models."""

    def __init__(self, config: Mapping[str, Any], task: Task, *, models: Path) -> None:
        self.task, self.seed = task, config["search_seed"]
        self.kinds = {name: NodeKind(**kind) for name, kind in config["kinds"].items()}
        self.pattern: AnyPattern = TypeAdapter(AnyPattern).validate_python(config["pattern"])
        self.settings = SearchConfig(**config["search"])
        self.budgets: Mapping[str, int] = config.get("budgets", {})  # of plain sampling
        self.checkpoints = config["models"]["checkpoints"]
        self.roles = config["models"]["roles"]
        self.paths = {
            name: model_folder(
                c["model"],
                cache=models,
                # Else a server has them.
                weights=engine_of(config["engine"], c["engine"])["name"] == "vllm",
            )
            for name, c in self.checkpoints.items()
        }
        self.tokenizers = {path: ChatTokenizer.load(path) for path in set(self.paths.values())}

    def __call__(self, problem: Problem) -> Search:
        if self.settings.count == "plain":
            return self._sample(problem)
        return self.search(problem, verify=self.task.verify).run()

    def search(
        self, problem: Problem, *, verify: Callable[[str, Problem], Verdict], **changes: Any
    ) -> TreeSearch:
        """The search of a problem, with a reward by `verify`; `changes` are of its settings."""
        pattern = draw_pattern(self.pattern, self.seed, problem)
        settings = SearchConfig(**{**self.settings.model_dump(), **changes})
        return TreeSearch(
            problem,
            task=self.task.name,
            verify=verify,
            kinds=self.kinds,
            pattern=pattern,
            settings=settings,
            writers=self._writers(pattern, settings),
            seed=self.seed,
        )

    def _sample(self, problem: Problem) -> Search:
        """Whole chains by the model that writes answers, for as many tokens as are told."""
        pattern = draw_pattern(self.pattern, self.seed, problem)
        return sample_chains(
            problem,
            task=self.task.name,
            verify=self.task.verify,
            closing=self.kinds[ANSWER].closing,
            pattern=pattern,
            settings=self.settings,
            writer=self._writers(pattern, self.settings)[ANSWER],
            seed=self.seed,
            tokens=self.budgets[problem.id],
        )

    def _writers(self, pattern: Pattern, settings: SearchConfig) -> dict[str, Writer]:
        """Who writes each kind of node."""
        prompters = {path: self._prompter(path, pattern) for path in self.tokenizers}
        return {
            kind: Writer(
                model=name,
                prompt_ids=prompters[self.paths[name]],
                encode=self.tokenizers[self.paths[name]].encode,
                sampling=Sampling(
                    temperature=self.checkpoints[name]["temperature"],
                    top_p=self.checkpoints[name]["top_p"],
                    max_tokens=settings.node_tokens,
                ),
            )
            for kind, name in self.roles.items()
        }

    def write_prompts(self, problem: Problem) -> None:
        """Write a problem's prompts in every pattern; UserError for what cannot be written."""
        for pattern in _options(self.pattern):
            for path in self.tokenizers:
                self._prompter(path, pattern)(problem)

    def _prompter(self, path: Path, pattern: Pattern) -> Callable[[Problem], tuple[int, ...]]:
        @remember
        def prompt_ids(problem: Problem) -> tuple[int, ...]:
            examples = self.task.examples(problem)
            messages = chat(problem.problem, examples, kinds=self.kinds, pattern=pattern)
            return self.tokenizers[path].prompt(messages)

        return prompt_ids


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
