"""Walks for every item, here or on a cluster; what was found is kept, and a run goes on from it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from marco.driver.report import Report, cost_table
from marco.driver.scheduler import Placed
from marco.driver.worker import Found, Starter, Worker, costs, share_out
from marco.engines.journal import Journal
from marco.errors import UserError

FINDINGS = "findings.sqlite"  # beside the workers' journals


def run_all(
    config: Mapping[str, Any],
    starter: Starter,
    items: Sequence[Any],
    *,
    label: str,
    wanted: str | None,
    order: Callable[[Sequence[Placed]], Sequence[Placed]],
    cluster: Mapping[str, Any],
    run: str,
    out: Path,
    models: Path,
) -> int:
    """Walk for every item; what was found waits in `out/journal` (see `findings`).

    `label` names what is found, `wanted` the status of it that is hoped for. `order` sorts the
    (place, item) that are left: which are begun first. What engines answer is
    kept there too, under the name `run`: a run that was broken off goes on from it. Returns the
    generated tokens per second, 0 where all was known.
    """
    folder = out / "journal"
    folder.mkdir(exist_ok=True)
    # What was found follows from the completions in the workers' journals.
    with closing(Journal(folder / FINDINGS, run=run, is_remade=True)) as journal:
        known = journal.finished()
        left = [(i, item) for i, item in enumerate(items) if i not in known]
        with closing(Report(label, len(items), known, wanted=wanted)) as report:
            if left:
                settings = {"run": run, "folder": folder, "models": models}
                walk = _walk_on_ray if cluster["name"] == "ray" else _walk_here
                for found in walk(config, starter, order(left), cluster, settings, report):
                    journal.keep_found(found.place, found.line)
                    report.on_found(found)
            rate = report.tokens_per_s
        if lost := len(items) - len(journal.finished()):
            raise UserError(f"{lost} of {label} are missing: start again, and they are made")
    print("\n".join(f"  {line}" for line in cost_table(costs(folder, run=run))), flush=True)
    return rate


def findings(out: Path, *, run: str) -> Iterator[str]:
    """The lines of all that was found, in the order of the items."""
    with closing(Journal(out / "journal" / FINDINGS, run=run)) as journal:
        yield from journal.found()


def _walk_here(
    config: Mapping[str, Any],
    starter: Starter,
    items: Sequence[Placed],
    cluster: Mapping[str, Any],
    settings: Mapping[str, Any],
    report: Report,
) -> Iterator[Found]:
    share_out(settings["folder"], workers=1, run=settings["run"])
    worker = Worker(config, starter, index=0, **settings)
    report.begin()
    try:
        yield from worker.walk(items, on_response=lambda counts: report.on_counts({0: counts}))
    finally:
        worker.close()


def _walk_on_ray(*arguments: Any) -> Iterator[Found]:
    from marco.driver.on_ray import walk_on_ray

    return walk_on_ray(*arguments)
