"""The graded samples beside a scores folder's figures: what rows are compared by."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from marco.errors import UserError
from marco.evaluation.metrics import votes_of
from marco.evaluation.official import Counts, is_in
from marco.evaluation.paired import Run
from marco.reporting.results import Result

FILE = "samples.jsonl"
COLUMNS = ("id", "turn", "group", "verdict", "details", "answer", "vote", "prompt")
# A table is made from what lies on disk, by no config; each comparison draws from the start.
RESAMPLES, SEED = 10_000, 0


def read_runs(result: Result) -> dict[str, Run]:
    """The verdicts by task; {} where the samples are not kept beside the results.

    Of tasks that are counted by the majority's vote, the votes; of official metrics the samples of
    their task, with what the metric counts. UserError for a line that is no sample, and where
    samples and results are not of the same problems.
    """
    path = result.folder / FILE
    if not path.is_file():
        return {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for task, row in _read(path):
        if task in result.tasks:
            rows.setdefault(task, []).append(row)
    runs = {}
    for task, scores in result.tasks.items():
        own = rows.get(task, [])
        if scores.metric == "official":
            name, _, part = task.rpartition(" ")
            own = [row for row in rows.get(name, []) if is_in(part, row)]
        run = Run.of(own, source=str(result.folder))
        if len(run.prompts) != scores.n:
            raise UserError(
                f"{path} holds {len(run.prompts)} problems of {task}, and the results beside it "
                f"tell of {scores.n}: evaluate again"
            )
        if scores.metric == "official":
            run = replace(run, counts=Counts.of(own))
        elif scores.counted == "votes":
            votes = Run.of(votes_of(own) or own, source=run.source)
            run = replace(run, verdicts=votes.verdicts)
        runs[task] = run
    return runs


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The task and the columns that are needed of each sample; responses are not kept."""
    try:
        with path.open(encoding="utf-8", errors="surrogatepass") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    yield row["task"], {name: row.get(name) for name in COLUMNS}
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise UserError(f"{path}, line {number}: not a graded sample") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
