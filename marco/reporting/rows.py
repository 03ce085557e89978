"""The rows of a table: results joined with their row and seed, with intervals and comparisons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from marco.errors import UserError
from marco.evaluation.paired import Run, compare, mismatch
from marco.evaluation.statistics import difference_of_shares, mean_with_interval, welch, wilson
from marco.reporting.results import Result
from marco.reporting.samples import RESAMPLES, SEED, read_runs
from marco.tasks.verdict import CORRECT, NO_ANSWER

PENDING = "pending"
FINISHED = "finished"


@dataclass(frozen=True)
class RowSpec:
    """A row that the table is to have: its recipe, and its printed title.

    It is compared with the rows of its `group`.
    """

    recipe: str
    title: str
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row's share minus that of the row above, with its interval; all in -1..1.

    `paired` by problem where both rows keep their samples (`seeds`: and against the noise of the
    seeds too), with the `p` of the test; else the rows are taken as independent.
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

    `difference` is None where there is no row above, or the row above has no result; `is_best` says
    that the row is better than every other one of its column (and group), beyond noise.
    """

    value: float
    low: float
    high: float
    kind: Literal["wilson", "bootstrap", "t"]
    per_seed: tuple[float, ...]
    n: int
    difference: Difference | None = None
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row's figures on one task; `n` is per seed, in the order of `seeds`."""

    seeds: tuple[int, ...]
    n: tuple[int, ...]
    accuracy: Measure
    no_answer: Measure
    tokens_mean: float | None
    truncated: float | None
    max_tokens: int | None  # of a reply; None where it is unknown, or not the same with all seeds


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; `cells` holds the tasks that have results, `status` says what else is.

    `is_first` says that it begins its `group`: there is no row above to compare it with.
    """

    recipe: str
    title: str
    status: str
    cells: dict[str, Cell]
    group: str = ""
    is_first: bool = False

    @property
    def label(self) -> str:
        """The title, and what is to be said beside results: that they are stale, or not all."""
        told = self.status.partition(":")[0]
        return self.title if self.status == FINISHED or not self.cells else f"{self.title} ({told})"


def build_rows(
    specs: Sequence[RowSpec],
    results: Sequence[Result],
    *,
    status: Mapping[str, str],
) -> list[Row]:
    """The rows in the order of `specs`, each compared with the row directly above it in its group.

    A row without a result is kept, with its status, `pending` if none is told. UserError for a
    recipe that is listed twice, or results whose intervals have different confidences.
    """
    twice = [recipe for recipe, times in Counter(s.recipe for s in specs).items() if times > 1]
    if twice:
        raise UserError(f"row {twice[0]!r} is listed twice: give each row of a table once")
    confidence = confidence_of(results)
    rows: list[Row] = []
    runs_of: list[dict[str, list[Run]]] = []
    for spec in specs:
        scored = sorted((r for r in results if r.row == spec.recipe), key=lambda r: r.seed)
        above = rows[-1].cells if rows and rows[-1].group == spec.group else {}
        # A row that has not run yet may be of any group.
        is_apart = bool(rows and rows[-1].cells) and all(row.group != spec.group for row in rows)
        tasks = dict.fromkeys(task for result in scored for task in result.tasks)
        runs = _runs(scored)
        cells = {task: _cell(scored, task, confidence) for task in tasks}
        for task in tasks:
            if task in above:
                pair = (runs.get(task, []), runs_of[-1].get(task, []))
                cells[task] = _compared(cells[task], above[task], pair, confidence)
        runs_of.append(runs)
        rows.append(
            Row(
                recipe=spec.recipe,
                title=spec.title,
                status=status.get(spec.recipe) or (FINISHED if cells else PENDING),
                cells=cells,
                group=spec.group,
                is_first=not rows or is_apart,
            )
        )
    if confidence is not None:
        for group in dict.fromkeys(row.group for row in rows):
            own = [place for place, row in enumerate(rows) if row.group == group]
            _mark_best([rows[i] for i in own], [runs_of[i] for i in own], confidence)
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
    n = tuple(s.n for s in scores)
    accuracies = [(s.accuracy, s.accuracy_interval) for s in scores]
    silences = [(s.no_answer, s.no_answer_interval) for s in scores]
    shared: Any = {"n": min(n), "confidence": confidence}
    kind = scores[0].intervals
    return Cell(
        seeds=tuple(result.seed for result in scored if task in result.tasks),
        n=n,
        accuracy=over_seeds(accuracies, kind=kind, **shared),
        no_answer=over_seeds(silences, kind=scores[0].no_answer_kind or kind, **shared),
        tokens_mean=_mean_if_known([s.tokens_mean for s in scores]),
        truncated=_mean_if_known([s.truncated for s in scores]),
        max_tokens=scores[0].max_tokens if len({s.max_tokens for s in scores}) == 1 else None,
    )


def over_seeds(
    told: Sequence[tuple[float, tuple[float, float]]],
    *,
    n: int,
    kind: Literal["wilson", "bootstrap", "t"],
    confidence: float,
) -> Measure:
    """One seed's share and interval as they are told (of `kind`); of several seeds the mean."""
    values = [value for value, _ in told]
    if len(values) == 1:
        value, (low, high) = told[0]
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

    def of(measure: Measure, other: Measure, verdict: str) -> Measure:
        return replace(measure, difference=_difference(measure, other, runs, verdict, confidence))

    return replace(
        cell,
        accuracy=of(cell.accuracy, above.accuracy, CORRECT),
        no_answer=of(cell.no_answer, above.no_answer, NO_ANSWER),
    )


def _mark_best(
    rows: Sequence[Row], runs_of: Sequence[Mapping[str, list[Run]]], confidence: float
) -> None:
    """Mark the best of each column where its difference to each other row there is beyond noise.

    As it must hold against all of them, it needs no correction for how many there are.
    """
    for task in dict.fromkeys(task for row in rows for task in row.cells):
        sides = [
            (row.cells, runs.get(task, []))
            for row, runs in zip(rows, runs_of, strict=True)
            if task in row.cells
        ]
        for name, verdict, sign in (("accuracy", CORRECT, 1), ("no_answer", NO_ANSWER, -1)):
            ranked = sorted(
                ((getattr(cells[task], name), cells, runs) for cells, runs in sides),
                key=lambda side, sign=sign: -sign * side[0].value,
            )
            best, cells, runs = ranked[0]
            differences = (  # the nearest first: where that does not hold, no other is looked at
                _difference(best, other, (runs, other_runs), verdict, confidence)
                for other, _, other_runs in ranked[1:]
            )
            holds = all(sign * d.value > 0 and not d.within_noise for d in differences)
            if holds and len(ranked) > 1:
                cells[task] = replace(cells[task], **{name: replace(best, is_best=True)})


def _difference(
    measure: Measure,
    other: Measure,
    runs: tuple[list[Run], list[Run]],
    verdict: str,
    confidence: float,
) -> Difference:
    """A measure minus another row's, paired by problem where that can be."""
    if all(runs) and mismatch(*runs) is None:
        return _paired(*runs, verdict, confidence)
    return _unpaired(measure, other, confidence=confidence)


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
