"""Grows the trees of a task's problems, here or on a cluster, and writes them down."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.engines.journal import Journal
from marco.errors import UserError
from marco.search.report import SearchReport, cost_table, summary
from marco.search.scheduler import Placed
from marco.search.start import longest_first
from marco.search.tree import read_trees, write_trees
from marco.search.worker import Grown, SearchWorker, costs, share_out
from marco.tasks.problem import Problem
from marco.tasks.registry import TaskConfig, make_task


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
    `cluster` are sections too; `models` is the folder where models are kept. What engines answer
    and which trees are finished is kept in `out/journal`, under the name `run`: a search that was
    broken off goes on from there. Returns the generated tokens per second, 0 where all was known.
    """
    folder = out / "journal"
    folder.mkdir(exist_ok=True)
    with closing(Journal(folder / "trees.sqlite", run=run)) as journal:
        known = journal.finished()
        left = [(i, problem) for i, problem in enumerate(problems) if i not in known]
        with closing(SearchReport(len(problems), known)) as report:
            if left:
                settings = {"run": run, "folder": folder, "models": models}
                queue = longest_first(left, config)
                search = _search_on_ray if cluster["name"] == "ray" else _search_here
                for grown in search(config, task, queue, cluster, settings, report):
                    journal.keep_tree(grown.place, grown.line)
                    report.on_tree(grown)
            rate = report.tokens_per_s
        if lost := len(problems) - len(journal.finished()):
            raise UserError(f"{lost} trees are missing: start again, and they are searched")
        write_trees(out / "trees.jsonl", journal.trees())
    lines = [*cost_table(costs(folder, run=run)), *summary(read_trees(out))]
    print("\n".join(f"  {line}" for line in lines), flush=True)
    return rate


def _search_here(
    config: Mapping[str, Any],
    task: Mapping[str, Any],
    problems: Sequence[Placed],
    cluster: Mapping[str, Any],
    settings: Mapping[str, Any],
    report: SearchReport,
) -> Iterator[Grown]:
    made: Any = make_task(TypeAdapter(TaskConfig).validate_python(task))
    share_out(settings["folder"], workers=1, run=settings["run"])
    worker = SearchWorker(config, made, index=0, **settings)
    report.begin()
    try:
        yield from worker.search(problems, on_response=lambda counts: report.on_counts({0: counts}))
    finally:
        worker.close()


def _search_on_ray(*arguments: Any) -> Iterator[Grown]:
    from marco.search.on_ray import search_on_ray

    return search_on_ray(*arguments)
