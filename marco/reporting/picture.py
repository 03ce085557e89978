"""A table as a picture: per task two panels, accuracy and no-answer ratio, one bar a row."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from marco.reporting.formats import Table, mark
from marco.reporting.rows import FINISHED, Cell, Measure, Row, measures_of

# Okabe and Ito's blue and orange: told apart by every kind of colour vision, and in grey.
ACCURACY, NO_ANSWER = "#0072B2", "#E69F00"
INK, QUIET = "#222222", "#767676"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a title is text, whatever dollar signs it holds
    "svg.hashsalt": "marco",  # the same table gives the same bytes
}


def picture(table: Table, *, kind: str, dpi: int = 160) -> bytes:
    """The picture as bytes of `kind` ("png" or "svg").

    Bars are shares in % with their intervals, small dots single seeds, open diamonds the paper's
    values; a row without a result shows its status.
    """
    with matplotlib.rc_context(STYLE):
        figure = _draw(table)
        out = io.BytesIO()
        stamp = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, dpi=dpi, bbox_inches="tight", metadata=stamp)
    return out.getvalue()


def _draw(table: Table) -> Figure:
    tasks = table.tasks or ("",)
    height = 1.5 + len(tasks) * (0.42 * max(len(table.rows), 2) + 0.75)
    layout = ConstrainedLayoutEngine(wspace=0.05)  # room for the numbers beyond each axis
    figure = Figure(figsize=(11, height), layout=layout, facecolor="white")
    panels = figure.subplots(len(tasks), 2, sharey="row", squeeze=False)
    for task, (left, right) in zip(tasks, panels, strict=True):
        name = f"{task}: " if task else ""
        _panel(left, table, task, lambda cell: cell.accuracy, which=0, colour=ACCURACY)
        _panel(right, table, task, lambda cell: cell.no_answer, which=1, colour=NO_ANSWER)
        left.set_title(f"{name}accuracy, % (higher is better)", loc="left", fontsize=10.5)
        right.set_title(f"{name}no answer, % (lower is better)", loc="left", fontsize=10.5)
        left.set_yticks(range(len(table.rows)), [_label(row, task) for row in table.rows])
        left.set_ylim(len(table.rows) - 0.4, -0.6)
    figure.suptitle(table.name, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.legend(
        handles=_legend(table), loc="outside lower left", ncols=2, frameon=False, fontsize=9
    )
    return figure


def _panel(
    axes: Axes,
    table: Table,
    task: str,
    measure_of: Callable[[Cell], Measure],
    *,
    which: int,
    colour: str,
) -> None:
    # The paper's benchmark stands beside its own task, or beside every task where none is the same.
    beside = table.paper_column == task or table.paper_column not in table.tasks
    for at, row in enumerate(table.rows):
        cell = row.cells.get(task)
        paper = row.paper[which] if row.paper and beside else None
        if cell is None:
            status = "not evaluated" if row.status == FINISHED else row.status
            start = 1 if paper is None or paper > 25 else 30
            axes.text(start, at, status, va="center", color=QUIET, style="italic")
        else:
            _bar(axes, at, measure_of(cell), colour, first=at == 0)
        if paper is not None:
            axes.plot(paper, at, **_DIAMOND)
    axes.set_xlim(0, 100)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.8)
    axes.tick_params(length=0, labelcolor=INK)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(QUIET)


def _bar(axes: Axes, at: int, measure: Measure, colour: str, *, first: bool) -> None:
    value, low, high = (100 * v for v in (measure.value, measure.low, measure.high))
    axes.barh(at, value, height=0.56, color=colour, alpha=0.55, linewidth=0)
    # A bar of 0 % has no width; its foot shows that it was measured.
    axes.plot([value, value], [at - 0.28, at + 0.28], color=colour, linewidth=2.5, clip_on=False)
    axes.errorbar(
        value,
        at,
        xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
        color=INK,
        capsize=3.5,
        linewidth=1.3,
        clip_on=False,
    )
    if len(measure.per_seed) > 1:
        dots = [100 * v for v in measure.per_seed]
        axes.plot(dots, [at + 0.17] * len(dots), **_DOT)
    # Beyond the axis, so that no interval or marker ever lies under the number.
    axes.annotate(
        f"{value:.1f} {mark(measure, first=first)}".rstrip(),
        (1.015, at),
        xycoords=("axes fraction", "data"),
        va="center",
        color=INK,
        annotation_clip=False,
    )


def _label(row: Row, task: str) -> str:
    cell = row.cells.get(task)
    if cell is None:
        return row.title
    counts = sorted(set(cell.n))
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    seeds = f"{len(cell.seeds)} seed" + ("s" if len(cell.seeds) > 1 else "")
    rest = "" if row.status == FINISHED else f", {row.status}"
    return f"{row.title}\nn = {n}, {seeds}{rest}"


_DIAMOND = {
    "marker": "D",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 1.4,
    "linestyle": "none",
    "clip_on": False,
    "zorder": 5,
}
_DOT = {
    "marker": "o",
    "markersize": 3.2,
    "color": INK,
    "linestyle": "none",
    "clip_on": False,
    "zorder": 4,
}


def _legend(table: Table) -> list[Line2D]:
    measures = measures_of(table.rows)
    handles = []
    if table.confidence is not None:
        kinds = {
            "wilson": "Wilson, one seed",
            "bootstrap": "bootstrap over problems, one seed",
            "t": "t over seeds, several seeds",
        }
        told = "; ".join(text for k, text in kinds.items() if any(m.kind == k for m in measures))
        whiskers = {"marker": "|", "markersize": 8, "color": INK, "linewidth": 1.3}
        label = f"{100 * table.confidence:g} % interval ({told})"
        handles.append(Line2D([], [], label=label, **whiskers))
    if any(len(m.per_seed) > 1 for m in measures):
        handles.append(Line2D([], [], label="a single seed", **_DOT))
    if table.paper is not None:
        column = table.paper.columns[table.paper_column]
        label = f"paper: {table.paper.student}, {column}"
        handles.append(Line2D([], [], label=label, **_DIAMOND))
    for sign, text in _signs(table):
        handles.append(Line2D([], [], linestyle="none", label=f"{sign} {text}"))
    return handles


def _signs(table: Table) -> list[tuple[str, str]]:
    below = measures_of(table.rows[1:])
    marks = {mark(measure, first=False) for measure in below}
    texts = {"†": "difference to the row above within noise", "‡": "row above has no result"}
    return [(sign, text) for sign, text in texts.items() if sign in marks]
