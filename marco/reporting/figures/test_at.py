"""Test@N: the share of problems that N tries solve, over tries and over tokens spent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from marco.errors import UserError
from marco.evaluation.statistics import pooled_share
from marco.evaluation.tries import solved_within
from marco.reporting.figures import style
from marco.reporting.figures.samples import read_samples
from marco.reporting.figures.style import Point
from marco.reporting.grid import Grid, in_percent
from marco.reporting.paper import PaperTable
from marco.reporting.results import FILE, Result
from marco.reporting.rows import Measure, RowSpec, confidence_of, over_seeds
from marco.reporting.samples import RESAMPLES, SEED
from marco.tasks.verdict import CORRECT

COLUMNS = ("id", "turn", "try", "verdict", "spent")
Kind = Literal["wilson", "bootstrap"]


@dataclass(frozen=True, kw_only=True)
class _Share:
    """Test@k of one evaluation, and the tokens that k tries at a problem take."""

    value: float
    interval: tuple[float, float]
    kind: Kind
    tokens: float | None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Test@k of a row on a task; `tokens` are those of k tries at a problem, None if not known."""

    row: str
    title: str
    task: str
    n: int
    seeds: int
    tries: tuple[int, ...]
    shares: tuple[Measure, ...]
    tokens: tuple[float | None, ...]


def read_curves(rows: Sequence[RowSpec], results: Sequence[Result]) -> tuple[list[Curve], float]:
    """Test@k of each row for k = 1, 2, 4, ... up to its tries, first turns only; the confidence.

    Of tries that depend on the ones before (a tree's) the first k, of others the unbiased estimator
    over all of them, with k times the tokens of a mean try. Intervals are over problems, of several
    seeds over seeds. Rows without samples are left out; UserError where none has some.
    """
    confidence = confidence_of(results)
    found: dict[tuple[RowSpec, str], list[tuple[int, dict[int, _Share]]]] = {}
    for row, result, samples in read_samples(rows, results, columns=COLUMNS):
        assert confidence is not None  # there is a result
        ordered = _is_ordered(result)
        for task, own in samples.items():
            first = [sample for sample in own if (sample["turn"] or 1) == 1]
            if not first:
                raise UserError(f"{result.folder}: no problem of {task} has a first turn")
            figures = _figures(first, ordered=ordered, confidence=confidence)
            found.setdefault((row, task), []).append(figures)
    assert confidence is not None
    return [_curve(*key, seeds, confidence) for key, seeds in found.items()], confidence


def tries_grid(
    curves: Sequence[Curve],
    *,
    confidence: float,
    paper: PaperTable | None = None,
    paper_column: str = "",
) -> Grid:
    """The curves in figures: what so many tries solve, and what they cost.

    The values of `paper` stand beside them, and those for other numbers of tries too.
    """
    columns = paper.beside([curve.task for curve in curves], column=paper_column) if paper else {}
    rows: list[tuple[Any, ...]] = []
    for curve in curves:
        own = dict(zip(curve.tries, zip(curve.shares, curve.tokens, strict=True), strict=True))
        printed = _printed(paper, curve.row, columns.get(curve.task))
        for tries in sorted({*own, *printed}):
            share, spent = own.get(tries, (None, None))
            figures = (share and in_percent(share), spent, printed.get(tries))
            rows.append((curve.title, curve.task, f"{curve.n} × {curve.seeds}", tries, *figures))
    heads = ("row", "task", "n × seeds", "N", "solved, %", "tokens a problem", "paper, %")
    label = paper and _label(paper, columns, [curve.row for curve in curves])
    told = [f"Paper: {label}, as printed ({paper.source})."] if paper and label else []
    shown = len(heads) if label else len(heads) - 1
    return Grid(
        name="test_at",
        title="Test@N: problems that one of N tries solves",
        heads=heads[:shown],
        rows=tuple(row[:shown] for row in rows),
        notes=(
            "Of independent tries the unbiased estimator over all of them, of a tree's the first "
            f"N; {confidence:.0%} intervals over problems, of several seeds over seeds.",
            *told,
        ),
    )


@style.styled
def tries_curves(
    name: str,
    curves: Sequence[Curve],
    *,
    confidence: float,
    paper: PaperTable | None = None,
    paper_column: str = "",
) -> Figure:
    """Per task the share of problems solved, in %, over tries and, where known, over tokens.

    The values of `paper` are open markers of the row's, `paper_column` as in a table.
    """
    if not curves:
        raise UserError(f"{name}: there is no row with several tries to show")
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    rows = list(dict.fromkeys(curve.row for curve in curves))
    columns = paper.beside(tasks, column=paper_column) if paper else {}
    told = any(tokens is not None for curve in curves for tokens in curve.tokens)
    figure = style.begin(
        f"{name}: Test@N, the share of problems that N tries solve",
        width=11 if told else 7,
        height=0.8 + 3.3 * len(tasks) + 0.2 * len(rows),
    )
    grid = figure.subplots(len(tasks), 1 + told, squeeze=False, sharey="row")
    for task, panels in zip(tasks, grid, strict=True):
        own = [curve for curve in curves if curve.task == task]
        beside = {curve.row: _printed(paper, curve.row, columns.get(task)) for curve in own}
        for axes, over in zip(panels, ("tries", "tokens"), strict=False):
            for curve in own:
                points = [
                    Point(x=x, measure=share)
                    for x, share in zip(getattr(curve, over), curve.shares, strict=True)
                    if x is not None
                ]
                places = {"series": rows.index(curve.row), "of": len(rows)}
                style.draw_curve(axes, points, **places, apart=over == "tries")
                if over == "tries" and (values := beside[curve.row]):
                    axes.plot(values.keys(), values.values(), **_paper(rows.index(curve.row)))
            tries = [n for printed in beside.values() for n in printed]
            _finish(axes, own, over, tries if over == "tries" else [])
        values = [bound for curve in own for m in curve.shares for bound in (m.low, m.high)]
        printed = [value for one in beside.values() for value in one.values()]
        low, high = min(100 * min(values), *printed, 100), max(100 * max(values), *printed, 0)
        panels[0].set_ylim(max(-3, low - 4), min(103, high + 4))
        panels[0].set_ylabel("problems solved, %")
        n = _range([curve.n for curve in own])
        for axes, over in zip(panels, ("tries", "tokens spent"), strict=False):
            title = f"{task} (n = {n}): Test@N over {over}"
            axes.set_title(style.wrapped(title, 60), loc="left", fontsize=10.5)
    figure.legend(
        handles=_legend(curves, rows, confidence, paper and _label(paper, columns, rows)),
        loc="outside lower left",
        ncols=2 if told else 1,
        frameon=False,
        fontsize=9,
        handlelength=3.5,
    )
    return figure


def _is_ordered(result: Result) -> bool:
    config = json.loads((result.folder / FILE).read_text(encoding="utf-8")).get("config") or {}
    return (config.get("decoding") or {}).get("method") == "mcts"


def _figures(
    samples: Sequence[Mapping[str, Any]], *, ordered: bool, confidence: float
) -> tuple[int, dict[int, _Share]]:
    """The number of problems of one evaluation of a task, and its Test@k."""
    problems: dict[Any, list[Mapping[str, Any]]] = {}
    for sample in samples:
        problems.setdefault(sample["id"], []).append(sample)
    tries = [sorted(own, key=lambda sample: sample["try"] or 0) for own in problems.values()]
    most = min(map(len, tries))
    told = all(sample["spent"] is not None for own in tries for sample in own)
    figures: dict[int, _Share] = {}
    for k in sorted({2**i for i in range(most.bit_length())} | {most}):
        if ordered:
            solved = [float(any(_right(s) for s in own[:k])) for own in tries]
            tokens = fmean(own[k - 1]["spent"] for own in tries) if told else None
        else:
            solved = [
                solved_within(k, tries=len(own), correct=sum(map(_right, own))) for own in tries
            ]
            means = (max(s["spent"] for s in own) / len(own) for own in tries) if told else ()
            tokens = k * fmean(means) if told else None
        interval = pooled_share(
            solved,
            [1] * len(solved),
            confidence=confidence,
            resamples=RESAMPLES,
            rng=np.random.default_rng(SEED),
        )
        kind: Kind = "wilson" if set(solved) <= {0.0, 1.0} else "bootstrap"
        figures[k] = _Share(value=fmean(solved), interval=interval, kind=kind, tokens=tokens)
    return len(tries), figures


def _right(sample: Mapping[str, Any]) -> bool:
    return sample["verdict"] == CORRECT


def _curve(
    row: RowSpec, task: str, seeds: Sequence[tuple[int, dict[int, _Share]]], confidence: float
) -> Curve:
    n = min(problems for problems, _ in seeds)
    shared = [k for k in seeds[0][1] if all(k in figures for _, figures in seeds)]
    shares, tokens = [], []
    for k in shared:
        own = [figures[k] for _, figures in seeds]
        shares.append(
            over_seeds(
                [(share.value, share.interval) for share in own],
                n=n,
                kind=own[0].kind,
                confidence=confidence,
            )
        )
        spent = [share.tokens for share in own if share.tokens is not None]
        tokens.append(fmean(spent) if len(spent) == len(own) else None)
    return Curve(
        row=row.recipe,
        title=row.title,
        task=task,
        n=n,
        seeds=len(seeds),
        tries=tuple(shared),
        shares=tuple(shares),
        tokens=tuple(tokens),
    )


def _finish(axes: Axes, curves: Sequence[Curve], over: str, printed: Sequence[int]) -> None:
    values = [x for curve in curves for x in getattr(curve, over) if x is not None]
    values += printed
    axes.set_xscale("log", base=2)
    if over == "tries":
        ticks = sorted(set(values))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("N, tries at a problem (log scale; rows side by side at each)")
    else:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("tokens generated for a problem by N tries, mean (log scale)")
    if values:
        margin = (max(values) / min(values)) ** 0.08 * 1.12
        axes.set_xlim(min(values) / margin, max(values) * margin)
        if max(values) < 4 * min(values):  # there may be no power of two among them
            axes.set_xticks(sorted(values))
    axes.minorticks_off()
    style.clear(axes, grid="both")


def _legend(
    curves: Sequence[Curve],
    rows: Sequence[str],
    confidence: float,
    paper: str | None,
) -> list[Line2D]:
    handles = []
    for series, row in enumerate(rows):
        own = [curve for curve in curves if curve.row == row]
        number = _range([curve.seeds for curve in own])
        title = f"{own[0].title} ({number} seed{'s' * (number != '1')})"
        handles.append(Line2D([], [], label=style.wrapped(title, 64), **style.look(series)))
    measures = [share for curve in curves for share in curve.shares]
    handles.append(style.interval_handle(measures, confidence))
    if len(rows) <= style.FEW and any(len(measure.per_seed) > 1 for measure in measures):
        handles.append(style.seed_handle())
    if paper:
        looks = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "color": style.INK}
        told = style.wrapped(f"open markers: the paper's value of the row ({paper})", 64)
        handles.append(Line2D([], [], linestyle="none", label=told, **looks))
    return handles


def _printed(paper: PaperTable | None, row: str, column: str | None) -> dict[int, float]:
    """The paper's values of a row, in %, by number of tries."""
    return paper.tries.get(row, {}).get(column, {}) if paper and column else {}


def _label(paper: PaperTable, columns: Mapping[str, str], rows: Sequence[str]) -> str | None:
    names = dict.fromkeys(
        paper.columns[column]
        for column in columns.values()
        if any(_printed(paper, row, column) for row in rows)
    )
    return f"{paper.student}, {', '.join(names)}" if names else None


def _paper(series: int) -> dict[str, Any]:
    looks = style.look(series)
    return looks | {"markerfacecolor": "none", "markersize": 8, "linewidth": 0.9}


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"
