"""A table as a picture: per task two panels, accuracy and no-answer ratio, one bar a row."""

import textwrap
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from marco.reporting.figures import style
from marco.reporting.figures.style import ACCURACY, INK, NO_ANSWER, QUIET
from marco.reporting.formats import NOISE, NOT_COMPARED, Table, mark
from marco.reporting.rows import FINISHED, Cell, Measure, Row

SHORT = 28  # characters of a status; the table's other forms have all of it
MeasureOf = Callable[[Cell], Measure]


def picture(table: Table, *, kind: str, dpi: int = 160) -> bytes:
    """The picture as bytes of `kind` ("png" or "svg").

    Bars are shares in % with their intervals, small dots single seeds, open diamonds the paper's
    values, bold numbers the best of their column; a row without a result shows its status.
    """
    return style.to_bytes(_draw(table), kind, dpi=dpi)


@style.styled
def _draw(table: Table) -> Figure:
    tasks = table.tasks or ("",)
    labels = {task: [_label(row, task) for row in table.rows] for task in tasks}
    tall = [style.row_height(own) * max(len(own), 2) + 0.75 for own in labels.values()]
    figure = style.begin(table.name, width=11, height=1.3 + sum(tall))
    panels = figure.subplots(len(tasks), 2, sharey="row", squeeze=False, height_ratios=tall)
    for task, (left, right) in zip(tasks, panels, strict=True):
        name = f"{task}: " if task else ""
        draw_bars(left, table, task, _accuracy, which=0, colour=ACCURACY)
        draw_bars(right, table, task, no_answer, which=1, colour=NO_ANSWER)
        for panel, title in (
            (left, f"{name}accuracy, % (higher is better)"),
            (right, f"{name}no answer, % (lower is better)"),
        ):
            panel.set_title(style.wrapped(title, 45), loc="left", fontsize=10.5)
        style.label_rows(left, labels[task])
    figure.legend(
        handles=legend(table, [_accuracy, no_answer]),
        loc="outside lower left",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure


def draw_bars(
    axes: Axes,
    table: Table,
    task: str,
    measure_of: MeasureOf,
    *,
    which: int,
    colour: str,
    limit: float = 100,
) -> None:
    """One measure of all rows on a task, as bars on an axis from 0 to `limit` %.

    `which` is its place in the paper's pair of values, 0 for accuracy, 1 for the no-answer ratio.
    """
    for at, row in enumerate(table.rows):
        cell, paper = row.cells.get(task), paper_value(table, row, task, which)
        if cell is None:
            status = "not evaluated" if row.status == FINISHED else row.status
            start = 0.01 if paper is None or paper > limit / 4 else 0.3
            short = textwrap.shorten(status, SHORT, placeholder=" …")
            axes.text(start * limit, at, short, va="center", color=QUIET, style="italic")
        else:
            _bar(axes, at, measure_of(cell), colour, first=row.is_first)
        if paper is not None:
            axes.plot(paper, at, **style.PAPER)
    axes.set_xlim(0, limit)
    style.clear(axes, grid="x")


def paper_value(table: Table, row: Row, task: str, which: int) -> float | None:
    """The paper's value, in %, that stands beside a row on a task."""
    column = table.beside.get(task)
    return table.printed(row, column)[which] if column else None


def _has_paper(table: Table, which: int) -> bool:
    """Whether any value of the paper's stands beside that measure of a row."""
    pairs = [table.printed(row, column) for row in table.rows for column in table.beside.values()]
    return any(pair[which] is not None for pair in pairs)


def no_answer(cell: Cell) -> Measure:
    """The measure of the no-answer figure and of the right panel."""
    return cell.no_answer


def _accuracy(cell: Cell) -> Measure:
    return cell.accuracy


def legend(table: Table, drawn: Sequence[MeasureOf]) -> list[Line2D]:
    """What bars, dots, diamonds, marks and bold numbers of the drawn measures mean."""
    measures = [of(cell) for row in table.rows for cell in row.cells.values() for of in drawn]
    handles = []
    if table.confidence is not None:
        handles.append(style.interval_handle(measures, table.confidence))
    if any(len(m.per_seed) > 1 for m in measures):
        handles.append(style.seed_handle())
    if any(_has_paper(table, 1 if of is no_answer else 0) for of in drawn):
        label = style.wrapped(f"paper: {table.paper_label}", 64)
        handles.append(Line2D([], [], label=label, **style.PAPER))
    below = [row for row in table.rows if not row.is_first]
    signs = {
        mark(of(cell), first=False) for row in below for cell in row.cells.values() for of in drawn
    }
    texts = {
        NOISE: "difference to the row above within noise",
        NOT_COMPARED: "row above has no result",
    }
    notes = [f"{sign} {text}" for sign, text in texts.items() if sign in signs]
    if any(measure.is_best for measure in measures):
        other = "other row of its group" if len(table.groups) > 1 else "other row of its column"
        notes.append(f"bold: better than every {other}, beyond noise")
    handles += [Line2D([], [], linestyle="none", label=note) for note in notes]
    return handles


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
        axes.plot(dots, [at + 0.17] * len(dots), **style.SEED)
    # Beyond the axis, so that no interval or marker ever lies under the number.
    axes.annotate(
        f"{value:.1f} {mark(measure, first=first)}".rstrip(),
        (1.015, at),
        xycoords=("axes fraction", "data"),
        va="center",
        color=INK,
        fontweight="bold" if measure.is_best else "normal",
        annotation_clip=False,
    )


def _label(row: Row, task: str) -> str:
    cell, title = row.cells.get(task), style.wrapped(row.title)
    if cell is None:
        return title
    rest = "" if row.status == FINISHED else f", {row.status}"
    return f"{title}\n{style.wrapped(style.counted(cell.n, [len(cell.seeds)]) + rest)}"
