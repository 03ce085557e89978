"""Grows the trees of a task's problems, and writes them down."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from marco.driver.run import findings, run_all
from marco.search.start import longest_first, search_starter
from marco.search.tree import Tree, read_trees, write_trees
from marco.tasks.problem import Problem


def grow(
    config: Mapping[str, Any],
    task: Mapping[str, Any],
    problems: Sequence[Problem],
    *,
    cluster: Mapping[str, Any],
    run: str,
    out: Path,
    models: Path,
) -> int:
    """Search a tree for every problem and write `trees.jsonl` in the problems' order.

    `config` holds the sections models, engine, kinds, pattern, search and search_seed; `task` and
    `cluster` are sections too; `models` is the folder where models are kept. A search that was
    broken off goes on (`run_all`). Returns the generated tokens per second, 0 where all was known.
    """
    rate = run_all(
        {**config, "task": task},
        search_starter,
        problems,
        label="trees",
        wanted="solved",
        order=partial(longest_first, config=config),
        cluster=cluster,
        run=run,
        out=out,
        models=models,
    )
    write_trees(out / "trees.jsonl", findings(out, run=run))
    print("\n".join(f"  {line}" for line in summary(read_trees(out))), flush=True)
    return rate


def summary(trees: Iterable[Tree]) -> list[str]:
    """What the search found, in lines for the terminal."""
    status, total = Counter[str](), Counter[str | None]()
    count = mixed = copies = 0
    for tree in trees:
        verdicts = Counter(node.verdict for node in tree.nodes)
        count += 1
        status[tree.status] += 1
        total += verdicts
        mixed += verdicts["correct"] > 0 and verdicts["wrong"] > 0
        copies += sum(node.copies - 1 for node in tree.nodes)
    return [
        f"trees {count}: " + ", ".join(f"{k} {n}" for k, n in status.most_common()),
        f"chains: correct {total['correct']}, wrong {total['wrong']}, "
        f"no answer {total['no_answer']}; duplicate siblings merged {copies}",
        f"trees with a correct and a wrong chain: {mixed} ({_percent(mixed, count)})",
    ]


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
