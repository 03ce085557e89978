"""The rows of a table: results joined with their row and seed, with intervals and comparisons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from marco.errors import UserError
from marco.evaluation.statistics import difference_of_shares, mean_with_interval, welch, wilson
from marco.reporting.results import Result, TaskScores

PENDING = "pending"
FINISHED = "finished"


@dataclass(frozen=True)
class RowSpec:
    """A row that the table is to have: its recipe, and its printed title."""

    recipe: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row's share minus that of the row above, with its interval; all in -1..1."""

    value: float
    low: float
    high: float
    kind: Literal["newcombe", "welch"]

    @property
    def within_noise(self) -> bool:
        return self.low <= 0 <= self.high


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A share in 0..1 (the mean over seeds where there are several), and how sure it is.

    `difference` is None where there is no row above, or the row above has no result.
    """

    value: float
    low: float
    high: float
    kind: Literal["wilson", "t"]
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
    for spec in specs:
        scored = sorted((r for r in results if r.row == spec.recipe), key=lambda r: r.seed)
        above = rows[-1].cells if rows else {}
        cells = {
            task: _cell(scored, task, above.get(task), confidence)
            for task in dict.fromkeys(task for result in scored for task in result.tasks)
        }
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


def _cell(
    scored: Sequence[Result], task: str, above: Cell | None, confidence: float | None
) -> Cell:
    assert confidence is not None  # there is a result, so there is a confidence
    seeds = tuple(result.seed for result in scored if task in result.tasks)
    scores = [result.tasks[task] for result in scored if task in result.tasks]
    accuracy = _measure([s.accuracy for s in scores], scores, confidence=confidence)
    no_answer = _measure([s.no_answer for s in scores], scores, confidence=confidence)
    if above is not None:
        accuracy = _compared(accuracy, above.accuracy, confidence=confidence)
        no_answer = _compared(no_answer, above.no_answer, confidence=confidence)
    return Cell(
        seeds=seeds,
        n=tuple(s.n for s in scores),
        accuracy=accuracy,
        no_answer=no_answer,
        tokens_mean=_mean_if_known([s.tokens_mean for s in scores]),
        truncated=_mean_if_known([s.truncated for s in scores]),
    )


def _measure(values: list[float], scores: Sequence[TaskScores], *, confidence: float) -> Measure:
    n = min(s.n for s in scores)
    # Seeds that agree exactly (no-answer 0 in each, say) would give an interval of no width, as if
    # the share were known; one evaluation's n problems still bound it.
    if len(set(values)) == 1:
        value, kind = values[0], "wilson"
        low, high = wilson(value * n, n, confidence=confidence)
    else:
        over = mean_with_interval(values, confidence=confidence)
        value, kind = over.mean, "t"
        low, high = max(0.0, over.interval[0]), min(1.0, over.interval[1])
    return Measure(value=value, low=low, high=high, kind=kind, per_seed=tuple(values), n=n)


def _compared(measure: Measure, above: Measure, *, confidence: float) -> Measure:
    """The measure with its difference to the row above.

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
    difference = Difference(value=measure.value - above.value, low=low, high=high, kind=kind)
    return replace(measure, difference=difference)


def _mean_if_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
