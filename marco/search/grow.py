"""Grows the trees of a task's problems with real engines, and writes them down."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache as remember
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Engine, Response, Sampling
from marco.engines.registry import EngineConfig, make_engine, model_folder
from marco.progress import Progress
from marco.search.mcts import Search, TreeSearch, Writer
from marco.search.pattern import AnyPattern, Kinds, MixedPattern, NodeKind, Pattern
from marco.search.scheduler import run_searches
from marco.search.settings import SearchConfig
from marco.search.tree import Tree, write_trees
from marco.tasks.examples import chat
from marco.tasks.problem import Problem
from marco.tasks.registry import Task


def grow(
    config: Mapping[str, Any], task: Task, problems: Sequence[Problem], *, out: Path, cache: Path
) -> None:
    """Search a tree for every problem and write `trees.jsonl` in the problems' order.

    `config` holds the sections models, engine, kinds, pattern, search and search_seed.
    """
    kinds = {name: NodeKind(**kind) for name, kind in config["kinds"].items()}
    pattern: Pattern | MixedPattern = TypeAdapter(AnyPattern).validate_python(config["pattern"])
    settings = SearchConfig(**config["search"])
    seed = config["search_seed"]
    checkpoints = config["models"]["checkpoints"]
    paths = {name: model_folder(c["model"], cache=cache) for name, c in checkpoints.items()}
    tokenizers = {path: ChatTokenizer.load(path) for path in set(paths.values())}
    options = [pattern] if isinstance(pattern, Pattern) else list(pattern.options.values())
    for option in options:  # what cannot be written down is told before an engine starts
        for tokenizer in tokenizers.values():
            _prompter(task, tokenizer, kinds, option)(problems[0])
    engines_by_path = _start_engines(config["engine"], set(paths.values()))

    def start(problem: Problem) -> Search:
        chosen = draw_pattern(pattern, seed, problem)
        writers = {
            kind: Writer(
                model=name,
                prompt_ids=_prompter(task, tokenizers[paths[name]], kinds, chosen),
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

    engines = {name: engines_by_path[path] for name, path in paths.items()}
    trees = _search_all(problems, start, engines)
    write_trees(out / "trees.jsonl", trees)
    for engine in engines_by_path.values():
        engine.close()
    print("\n".join(f"  {line}" for line in summary(trees)), flush=True)


def draw_pattern(pattern: Pattern | MixedPattern, seed: int, problem: Problem) -> Pattern:
    """The pattern of a problem: drawn by (seed, problem) from a mixed one."""
    if isinstance(pattern, Pattern):
        return pattern
    names = sorted(pattern.options)
    return pattern.options[random.Random(f"{seed}/{problem.id}/pattern").choice(names)]


def summary(trees: Sequence[Tree]) -> list[str]:
    """What the search found, in lines for the terminal."""
    status = Counter(tree.status for tree in trees)
    verdicts = [Counter(node.verdict for node in tree.nodes) for tree in trees]
    mixed = sum(v["correct"] > 0 and v["wrong"] > 0 for v in verdicts)
    total = sum(verdicts, Counter())
    copies = sum(node.copies - 1 for tree in trees for node in tree.nodes)
    return [
        f"trees {len(trees)}: " + ", ".join(f"{k} {n}" for k, n in status.most_common()),
        f"chains: correct {total['correct']}, wrong {total['wrong']}, "
        f"no answer {total['no_answer']}; duplicate siblings merged {copies}",
        f"trees with a correct and a wrong chain: {mixed} ({mixed / len(trees):.0%})",
    ]


def _start_engines(config: Mapping[str, Any], paths: set[Path]) -> dict[Path, Engine]:
    """One engine per checkpoint, however many roles it has."""
    checked: Any = TypeAdapter(EngineConfig).validate_python(config)
    return {path: make_engine(checked, path) for path in sorted(paths)}


def _prompter(task: Task, tokenizer: ChatTokenizer, kinds: Kinds, pattern: Pattern) -> Any:
    @remember
    def prompt_ids(problem: Problem) -> tuple[int, ...]:
        examples = task.examples(problem)
        return tokenizer.prompt(chat(problem.problem, examples, kinds=kinds, pattern=pattern))

    return prompt_ids


def _search_all(
    problems: Sequence[Problem], start: Any, engines: Mapping[str, Engine]
) -> list[Tree]:
    progress = Progress("trees", len(problems), "problems")
    tokens = finished_tokens = solved = 0
    trees: dict[int, Tree] = {}

    def tell() -> None:
        # Many trees are open side by side, so the tokens tell what is done, and not the trees.
        expected = len(problems) * finished_tokens / max(len(trees), 1)
        progress.update(
            len(trees),
            share=min(tokens / expected, 1.0) if expected else 0.0,
            solved=solved,
            tokens_per_s=progress.rate(tokens),
        )

    def on_response(response: Response) -> None:
        nonlocal tokens
        tokens += sum(completion.tokens for completion in response.completions)
        tell()

    for place, tree in run_searches(problems, start, engines, on_response=on_response):
        trees[place] = tree
        finished_tokens += tree.usage["completion_tokens"]
        solved += tree.status == "solved"
        tell()
    progress.close()
    return [trees[place] for place in sorted(trees)]
