"""Accuracy and no-answer ratio against a setting that was swept: alpha, beta, epsilon."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from marco.errors import UserError
from marco.reporting.figures import style
from marco.reporting.figures.style import Point
from marco.reporting.formats import Table
from marco.reporting.picture import paper_value
from marco.reporting.results import Result
from marco.reporting.rows import Measure

SYMBOLS = {"loss.alpha": "α", "loss.preference.beta": "β", "loss.preference.epsilon": "ε"}
Place = tuple[float, str]  # a row's value of the setting, and the curve that it is of
MOST_TICKS = 12  # numbers of swept values that stand clear of each other
DECADE = 10  # from this ratio of its largest and smallest value on, a sweep is drawn by ratios


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One measure along the swept values, and the paper's (x, % ) beside it."""

    title: str
    points: tuple[Point, ...]
    paper: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The curves of one task; `n` and `seeds` are those of all its points."""

    task: str
    accuracy: tuple[Curve, ...]
    no_answer: tuple[Curve, ...]
    n: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep of `setting`, a dotted key of the config, task by task."""

    name: str
    setting: str
    panels: tuple[Panel, ...]
    confidence: float
    paper: str | None


def read_places(
    results: Sequence[Result], setting: str, *, apart: str | None = None
) -> dict[str, Place]:
    """Each row's number for a dotted key of the config, as its scores folders tell it.

    `apart` is a second key: rows with different values of it are points of different curves. Rows
    that do not tell the number are left out. UserError where none does, and where the seeds of a
    row differ in it.
    """
    places: dict[str, Place] = {}
    for result in results:
        value = result.settings.get(setting)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        other = _number(result.settings.get(apart)) if apart else ""
        title = f"{SYMBOLS.get(apart, apart)} = {other}" if apart else ""
        place = (float(value), title)
        if places.setdefault(result.row, place) != place:
            raise UserError(
                f"row {result.row!r} has several values of {setting}, one is in {result.folder}: "
                "give each value a row of its own"
            )
    if not places:
        raise UserError(
            f"no scores tell a number for {setting}: evaluate students of a sweep over it"
        )
    return places


def sweep_of(table: Table, places: Mapping[str, Place], *, setting: str) -> Sweep:
    """The rows of a table that have a place, as curves over the setting.

    UserError where two rows have the same place, and where no row with a place has a result.
    """
    rows = [row for row in table.rows if row.recipe in places]
    taken: dict[Place, str] = {}
    for row in rows:
        other = taken.setdefault(places[row.recipe], row.recipe)
        if other != row.recipe:
            raise UserError(
                f"rows {other!r} and {row.recipe!r} both have {setting} = "
                f"{_number(places[row.recipe][0])}: give the rows of the sweep alone"
            )
    scored = [row for row in rows if row.cells]
    if not scored or table.confidence is None:
        raise UserError(f"no row of {table.name} with a value of {setting} has a result yet")
    titles = sorted({places[row.recipe][1] for row in rows}, key=_by_number)

    def curves(task: str, name: Literal["accuracy", "no_answer"], which: int) -> Iterable[Curve]:
        for title in titles:
            own = [(places[row.recipe][0], row) for row in rows if places[row.recipe][1] == title]
            own.sort(key=lambda pair: pair[0])
            beside = [(x, paper_value(table, row, task, which)) for x, row in own]
            yield Curve(
                title=title,
                points=tuple(
                    Point(x=x, measure=getattr(row.cells[task], name))
                    for x, row in own
                    if task in row.cells
                ),
                paper=tuple((x, value) for x, value in beside if value is not None),
            )

    panels = []
    for task in table.tasks:
        cells = [row.cells[task] for row in scored if task in row.cells]
        if cells:
            panel = Panel(
                task=task,
                accuracy=tuple(curves(task, "accuracy", 0)),
                no_answer=tuple(curves(task, "no_answer", 1)),
                n=tuple(n for cell in cells for n in cell.n),
                seeds=tuple(len(cell.seeds) for cell in cells),
            )
            panels.append(panel)
    paper = table.paper and style.wrapped(f"paper: {table.paper_label}", 64)
    return Sweep(
        name=table.name,
        setting=setting,
        panels=tuple(panels),
        confidence=table.confidence,
        paper=paper,
    )


@style.styled
def sweep_curves(sweep: Sweep) -> Figure:
    """Per task two panels, accuracy and no-answer ratio in % against the swept values.

    The axis is linear, or by ratios from a decade on, where 0 stands one step left of the smallest
    other value. Curves have intervals, single seeds, and the paper's values as open diamonds.
    """
    symbol = SYMBOLS.get(sweep.setting, sweep.setting)
    figure = style.begin(
        f"{sweep.name}: accuracy and no-answer ratio against {symbol}",
        width=11,
        height=1.1 + 3.2 * len(sweep.panels),
    )
    grid = figure.subplots(len(sweep.panels), 2, squeeze=False)
    for panel, (left, right) in zip(sweep.panels, grid, strict=True):
        told = f"{panel.task} ({style.counted(panel.n, panel.seeds)})"
        _draw(left, panel.accuracy, sweep, bottom=None)
        _draw(right, panel.no_answer, sweep, bottom=0.0)
        for axes, measure, wanted in (
            (left, "accuracy", "higher"),
            (right, "no answer", "lower"),
        ):
            title = f"{told}: {measure} ({wanted} is better)"
            axes.set_title(style.wrapped(title, 60), loc="left", fontsize=10.5)
            axes.set_ylabel(f"{measure}, %")
    figure.legend(
        handles=_legend(sweep),
        loc="outside lower left",
        ncols=2,
        frameon=False,
        fontsize=9,
        handlelength=3.5,
    )
    return figure


def _draw(axes: Axes, curves: Sequence[Curve], sweep: Sweep, *, bottom: float | None) -> None:
    for i, curve in enumerate(curves):
        style.draw_curve(axes, curve.points, series=i, of=len(curves))
        if curve.paper:
            looks: dict[str, Any] = style.PAPER | {"linestyle": ":", "color": style.QUIET}
            axes.plot(*zip(*curve.paper, strict=True), **looks)
    measures = [point.measure for curve in curves for point in curve.points]
    values = [100 * bound for m in measures for bound in (m.low, m.high)]
    values += [value for curve in curves for _, value in curve.paper]
    axes.set_ylim(*_range(values, bottom=bottom))
    space_out(
        axes, [p.x for c in curves for p in c.points] + [x for c in curves for x, _ in c.paper]
    )
    symbol = SYMBOLS.get(sweep.setting)
    axes.set_xlabel(f"{symbol} ({sweep.setting})" if symbol else sweep.setting)
    style.clear(axes, grid="both")


def space_out(axes: Axes, values: Sequence[float]) -> None:
    """Scale and ticks of an x-axis for the swept values."""
    ticks = sorted(set(values))
    positive = [value for value in ticks if value > 0]
    by_ratio = bool(positive) and ticks[0] >= 0 and positive[-1] >= DECADE * positive[0]
    if by_ratio and ticks[0] > 0:
        axes.set_xscale("log")
        margin = (positive[-1] / positive[0]) ** 0.08
        axes.set_xlim(positive[0] / margin, positive[-1] * margin)
    elif by_ratio:
        # Linear below the smallest value, so that 0 has a place: as wide as half a decade.
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        axes.set_xlim(-0.4 * positive[0], positive[-1] * 1.6)
    else:
        margin = 0.06 * (ticks[-1] - ticks[0]) or 0.5 * abs(ticks[0]) or 0.5
        axes.set_xlim(ticks[0] - margin, ticks[-1] + margin)
    if len(ticks) <= MOST_TICKS:
        axes.set_xticks(ticks, [_number(tick) for tick in ticks])
    axes.minorticks_off()


def _range(values: Sequence[float], *, bottom: float | None) -> tuple[float, float]:
    """The % that an axis shows: a little more than the values, ten points at least."""
    low, high = min(values), max(values)
    pad = max(0.06 * (high - low), (10 - (high - low)) / 2, 1.0)
    first = low - pad if bottom is None else bottom - 0.03 * max(high, 10)
    return max(first, -3.0), min(high + pad, 103.0)


def _legend(sweep: Sweep) -> list[Line2D]:
    curves = sweep.panels[0].accuracy
    measures: list[Measure] = [
        point.measure
        for panel in sweep.panels
        for curve in (*panel.accuracy, *panel.no_answer)
        for point in curve.points
    ]
    handles = [
        Line2D([], [], label=curve.title, **style.look(i))
        for i, curve in enumerate(curves)
        if curve.title
    ]
    handles.append(style.interval_handle(measures, sweep.confidence))
    if len(curves) <= style.FEW and any(len(measure.per_seed) > 1 for measure in measures):
        handles.append(style.seed_handle())
    if sweep.paper and any(c.paper for p in sweep.panels for c in (*p.accuracy, *p.no_answer)):
        looks: dict[str, Any] = style.PAPER | {"linestyle": ":", "color": style.QUIET}
        handles.append(Line2D([], [], label=sweep.paper, **looks))
    return handles


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _by_number(title: str) -> tuple[float, str]:
    """Curves in the order of their numbers, those without one at the end."""
    try:
        return float(title.rpartition(" = ")[2]), title
    except ValueError:
        return float("inf"), title
