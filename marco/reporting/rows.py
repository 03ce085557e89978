"""The rows of a table: results joined with their row and seed, with intervals and comparisons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np

from marco.errors import UserError
from marco.evaluation.paired import Run, compare, mismatch
from marco.evaluation.statistics import difference_of_shares, mean_with_interval, welch, wilson
from marco.reporting.results import Result, TaskScores
from marco.reporting.samples import RESAMPLES, SEED, read_runs
from marco.tasks.verdict import CORRECT, NO_ANSWER

PENDING = "pending"
FINISHED = "finished"


@dataclass(frozen=True)
class RowSpec:
    """A row that the table is to have: its recipe, and its printed title."""

    recipe: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row's share minus that of the row above, with its interval; all in -1..1.

    `paired` by problem where both rows keep their samples (`seeds`: and against the noise of the
    seeds too), with the `p` of the exact test; else the rows are taken as independent.
    """

    value: float
    low: float
    high: float
    kind: Literal["paired", "paired_seeds", "newcombe", "welch"]
    within_noise: bool
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A share in 0..1 (the mean over seeds where there are several), and how sure it is.

    `difference` is None where there is no row above, or the row above has no result.
    """

    value: float
    low: float
    high: float
    kind: Literal["wilson", "bootstrap", "t"]
    per_seed: tuple[float, ...]
    n: int
    difference: Difference | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row's figures on one task; `n` is per seed, in the order of `seeds`."""

    seeds: tuple[int, ...]
    n: tuple[int, ...]
    accuracy: Measure
    no_answer: Measure
    tokens_mean: float | None
    truncated: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; `cells` holds the tasks that have results, `status` says what else is."""

    recipe: str
    title: str
    status: str
    cells: dict[str, Cell]
    paper: tuple[float, float] | None


def build_rows(
    specs: Sequence[RowSpec],
    results: Sequence[Result],
    *,
    status: Mapping[str, str],
    paper: Mapping[str, tuple[float, float]],
) -> list[Row]:
    """The rows in the order of `specs`, each compared with the row directly above it.

    A row without a result is kept, with its status, `pending` if none is told. `paper` maps paper
    rows to (accuracy, no-answer ratio) in %. UserError for a recipe that is listed twice, or
    results whose intervals have different confidences.
    """
    twice = [recipe for recipe, times in Counter(s.recipe for s in specs).items() if times > 1]
    if twice:
        raise UserError(f"row {twice[0]!r} is listed twice: give each row of a table once")
    confidence = confidence_of(results)
    rows: list[Row] = []
    runs_above: dict[str, list[Run]] = {}
    for spec in specs:
        scored = sorted((r for r in results if r.row == spec.recipe), key=lambda r: r.seed)
        above = rows[-1].cells if rows else {}
        tasks = dict.fromkeys(task for result in scored for task in result.tasks)
        runs = _runs(scored)
        cells = {task: _cell(scored, task, confidence) for task in tasks}
        for task in tasks:
            if task in above:
                pair = (runs.get(task, []), runs_above.get(task, []))
                cells[task] = _compared(cells[task], above[task], pair, confidence)
        runs_above = runs
        rows.append(
            Row(
                recipe=spec.recipe,
                title=spec.title,
                status=status.get(spec.recipe) or (FINISHED if cells else PENDING),
                cells=cells,
                paper=paper.get(spec.recipe),
            )
        )
    return rows


def measures_of(rows: Sequence[Row]) -> list[Measure]:
    """Every measure of the rows, in their order."""
    cells = [cell for row in rows for cell in row.cells.values()]
    return [measure for cell in cells for measure in (cell.accuracy, cell.no_answer)]


def confidence_of(results: Sequence[Result]) -> float | None:
    """The one confidence of all the results' intervals; None without results."""
    found = {scores.confidence: r.folder for r in results for scores in r.tasks.values()}
    if len(found) > 1:
        told = ", ".join(f"{value} in {folder}" for value, folder in sorted(found.items()))
        raise UserError(f"one table needs one confidence, got {told}: grade again with one of them")
    return next(iter(found), None)


def _runs(scored: Sequence[Result]) -> dict[str, list[Run]]:
    """The verdicts of each seed by task, of tasks where all seeds have kept their samples."""
    read = [(result, read_runs(result)) for result in scored]
    tasks = dict.fromkeys(task for result in scored for task in result.tasks)
    asked = {task: [runs for result, runs in read if task in result.tasks] for task in tasks}
    return {
        task: [runs[task] for runs in seeds]
        for task, seeds in asked.items()
        if all(task in runs for runs in seeds)
    }


def _cell(scored: Sequence[Result], task: str, confidence: float | None) -> Cell:
    assert confidence is not None  # there is a result, so there is a confidence
    scores = [result.tasks[task] for result in scored if task in result.tasks]
    accuracies = [(s.accuracy, s.accuracy_interval) for s in scores]
    silences = [(s.no_answer, s.no_answer_interval) for s in scores]
    return Cell(
        seeds=tuple(result.seed for result in scored if task in result.tasks),
        n=tuple(s.n for s in scores),
        accuracy=_measure(accuracies, scores, confidence=confidence),
        no_answer=_measure(silences, scores, confidence=confidence),
        tokens_mean=_mean_if_known([s.tokens_mean for s in scores]),
        truncated=_mean_if_known([s.truncated for s in scores]),
    )


def _measure(
    told: Sequence[tuple[float, tuple[float, float]]],
    scores: Sequence[TaskScores],
    *,
    confidence: float,
) -> Measure:
    """One seed's value and interval as they are told; of several seeds the mean."""
    values, n = [value for value, _ in told], min(s.n for s in scores)
    if len(values) == 1:
        (value, (low, high)), kind = told[0], scores[0].intervals
    elif len(set(values)) == 1:
        # Seeds that agree exactly (no-answer 0 in each, say) would give an interval of no width, as
        # if the share were known; one evaluation's n problems still bound it.
        value, kind = values[0], "wilson"
        low, high = wilson(value * n, n, confidence=confidence)
    else:
        over = mean_with_interval(values, confidence=confidence)
        value, kind = over.mean, "t"
        low, high = max(0.0, over.interval[0]), min(1.0, over.interval[1])
    return Measure(value=value, low=low, high=high, kind=kind, per_seed=tuple(values), n=n)


def _compared(
    cell: Cell, above: Cell, runs: tuple[list[Run], list[Run]], confidence: float | None
) -> Cell:
    """The cell with its differences to the row above, paired by problem where that can be."""
    assert confidence is not None
    is_paired = all(runs) and mismatch(*runs) is None

    def of(measure: Measure, other: Measure, verdict: str) -> Measure:
        difference = (
            _paired(*runs, verdict, confidence)
            if is_paired
            else _unpaired(measure, other, confidence=confidence)
        )
        return replace(measure, difference=difference)

    return replace(
        cell,
        accuracy=of(cell.accuracy, above.accuracy, CORRECT),
        no_answer=of(cell.no_answer, above.no_answer, NO_ANSWER),
    )


def _paired(runs: list[Run], above: list[Run], verdict: str, confidence: float) -> Difference:
    found = compare(
        runs,
        above,
        verdict=verdict,
        confidence=confidence,
        resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    low, high = found.interval
    return Difference(
        value=found.difference,
        low=low,
        high=high,
        kind="paired" if found.over_seeds is None else "paired_seeds",
        within_noise=not found.holds,
        p=found.p,
    )


def _unpaired(measure: Measure, above: Measure, *, confidence: float) -> Difference:
    """The difference of two rows whose problems cannot be matched.

    Welch's interval needs several seeds in both rows; else the rows count as two independent
    samples of n problems each, whatever the number of seeds, since seeds share their problems.
    """
    several = min(len(measure.per_seed), len(above.per_seed)) > 1
    if several and "t" in (measure.kind, above.kind):
        low, high = welch(measure.per_seed, above.per_seed, confidence=confidence)
        kind = "welch"
    else:
        low, high = difference_of_shares(
            measure.value, measure.n, above.value, above.n, confidence=confidence
        )
        kind = "newcombe"
    return Difference(
        value=measure.value - above.value,
        low=low,
        high=high,
        kind=kind,
        within_noise=low <= 0 <= high,
    )


def _mean_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
