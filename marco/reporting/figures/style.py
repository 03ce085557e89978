"""What all pictures share: colours, hatches, lines, the frame of a figure, and its bytes.

Nothing is told by colour alone: series differ by marker and dash too, areas by hatch. The colours
are Okabe and Ito's, told apart by every kind of colour vision.
"""

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from marco.reporting.rows import Measure

ACCURACY, NO_ANSWER = "#0072B2", "#E69F00"
INK, QUIET, GRID = "#222222", "#767676", "#E4E4E4"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a title is text, whatever dollar signs it holds
    "svg.hashsalt": "marco",  # the same figure gives the same bytes
    "hatch.linewidth": 0.6,
}
styled = matplotlib.rc_context(STYLE)  # decorates what draws: most of a style is set by then

# Yellow is left out: a line of it is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1.5, 1.5, 1.5, 1.5, 1.5)))
FEW = 3  # series whose single seeds can be told apart
LABEL = 40  # characters in a line of a row's label
PAPER: dict[str, Any] = {
    "marker": "D",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 1.4,
    "linestyle": "none",
    "clip_on": False,
    "zorder": 5,
}
SEED: dict[str, Any] = {
    "marker": "o",
    "markersize": 3.2,
    "color": INK,
    "linestyle": "none",
    "clip_on": False,
    "zorder": 4,
}
KINDS = {
    "wilson": "Wilson, one seed",
    "bootstrap": "bootstrap over problems, one seed",
    "t": "t over seeds, several seeds",
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measure at a place of the x-axis."""

    x: float
    measure: Measure


def begin(title: str, *, width: float, height: float) -> Figure:
    """An empty figure with its title, sizes in inches; a long title takes room of its own."""
    lines = wrapped(title, round(8 * width))
    figure = Figure(
        figsize=(width, height + 0.22 * (lines.count("\n") + 1)),
        layout=ConstrainedLayoutEngine(wspace=0.05),  # room for numbers beyond an axis
        facecolor="white",
    )
    figure.suptitle(lines, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure


def to_bytes(figure: Figure, kind: str, *, dpi: int = 160) -> bytes:
    """The figure as bytes of `kind` ("png" or "svg"), the same whenever it is drawn."""
    out = io.BytesIO()
    stamp = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format=kind, dpi=dpi, bbox_inches="tight", metadata=stamp)
    return out.getvalue()


def wrapped(text: str, width: int = LABEL) -> str:
    """The text in lines of at most `width` characters; `β = 0.1` stays together."""
    return (
        "\n".join(
            textwrap.wrap(text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), width)
        )
        or " "
    )


def row_height(labels: Iterable[str]) -> float:
    """Inches that a row takes so that labels of several lines stand clear of each other."""
    return max(0.42, 0.1 + 0.165 * max((1 + label.count("\n") for label in labels), default=1))


def panels(tasks: int) -> tuple[int, int]:
    """(rows, columns) of panels that all have the same rows of a table: at most three abreast."""
    columns = min(tasks, 3)
    return -(-tasks // columns), columns


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """The rows from top to bottom, each with its label."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def row_panels(
    title: str, tasks: int, rows: Iterable[str], *, more: float
) -> tuple[Figure, list[Axes]]:
    """A panel a task, all with a place for each of the `rows`; `more` inches are for the legend."""
    labels = [wrapped(row) for row in rows]
    down, across = panels(tasks)
    tall = row_height(labels) * max(len(labels), 2) + 0.95
    figure = begin(title, width=4 + 3.5 * across, height=more + down * tall)
    axes = list(figure.subplots(down, across, sharey=True, squeeze=False).flat)
    for left_over in axes[tasks:]:
        left_over.remove()
    label_rows(axes[0], labels)
    return figure, axes[:tasks]


def row_legend(figure: Figure, handles: Sequence[Any], *, tasks: int) -> None:
    """The legend below the panels of `row_panels`."""
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=1 if panels(tasks)[1] == 1 else 2,
        frameon=False,
        fontsize=9,
    )


def limit(values: Iterable[float | None]) -> float:
    """Where an axis of % from 0 on ends: the next round number past all the values."""
    most = max((value for value in values if value is not None), default=0.0)
    return next((bound for bound in (5, 10, 20, 30, 40, 50, 60, 80) if most <= bound), 100.0)


def clear(axes: Axes, *, grid: str) -> None:
    """Only a grid along the values (`grid` is "x", "y" or "both") and the axes that carry them."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # pyright: ignore[reportArgumentType]
    axes.tick_params(length=0, labelcolor=INK, which="both")
    if grid == "x":
        axes.tick_params(axis="y", pad=8)  # a marker at 0 stands clear of the labels
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left" or (side == "bottom" and grid != "x"))
        spine.set_color(QUIET)


def look(series: int) -> dict[str, Any]:
    """Colour, marker and dash of a series; no two of the first 35 have both marker and dash."""
    return {
        "color": COLOURS[series % len(COLOURS)],
        "marker": MARKERS[series % len(MARKERS)],
        "linestyle": DASHES[series % len(DASHES)],
        "linewidth": 1.6,
        "markersize": 6,
    }


def draw_curve(
    axes: Axes, points: Sequence[Point], *, series: int, of: int, apart: bool = True
) -> None:
    """A line through the points (shares, drawn in %), with their intervals and single seeds.

    Where series have the same x they stand `apart`, a little beside each other, so that no interval
    hides another. The seeds are drawn of a few series only.
    """
    step = 12 if of <= FEW else 30 / of  # points on paper, of 72 an inch
    aside = step * (series - (of - 1) / 2) if apart else 0
    place, beside = (_shifted(axes, by) for by in (aside, aside + 6))
    xs, values = [p.x for p in points], [100 * p.measure.value for p in points]
    below = [max(0.0, v - 100 * p.measure.low) for v, p in zip(values, points, strict=True)]
    above = [max(0.0, 100 * p.measure.high - v) for v, p in zip(values, points, strict=True)]
    looks = look(series)
    axes.plot(xs, values, transform=place, zorder=3, **looks)
    axes.errorbar(
        xs,
        values,
        yerr=[below, above],
        fmt="none",
        ecolor=looks["color"],
        elinewidth=1.1,
        capsize=2.5,
        transform=place,
        zorder=2,
    )
    dots = [
        (p.x, 100 * v) for p in points if len(p.measure.per_seed) > 1 for v in p.measure.per_seed
    ]
    if dots and of <= FEW:
        axes.plot(*zip(*dots, strict=True), transform=beside, **SEED)


def _shifted(axes: Axes, points: float) -> Transform:
    """Where the axes' values stand, moved to the right."""
    assert axes.figure is not None
    return axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)


def interval_label(measures: Sequence[Measure], confidence: float) -> str:
    """What the whiskers are."""
    kinds = dict(KINDS)
    if any(m.kind == "wilson" and len(m.per_seed) > 1 for m in measures):
        kinds["wilson"] += ", or seeds that agree"
    told = "; ".join(text for kind, text in kinds.items() if any(m.kind == kind for m in measures))
    return f"{100 * confidence:g} % interval ({told})"


def interval_handle(measures: Sequence[Measure], confidence: float) -> Line2D:
    """The whiskers in a legend."""
    whiskers: dict[str, Any] = {"marker": "|", "markersize": 8, "color": INK, "linewidth": 1.3}
    return Line2D([], [], label=interval_label(measures, confidence), **whiskers)


def seed_handle() -> Line2D:
    """The dots of single seeds in a legend."""
    return Line2D([], [], label="a single seed", **SEED)


def counted(n: Iterable[int], seeds: Iterable[int]) -> str:
    """`n = 200, 3 seeds`, ranges where they differ."""
    least, most = min(n := list(n)), max(n)
    few, many = min(seeds := list(seeds)), max(seeds)
    problems = str(least) if least == most else f"{least}–{most}"
    number = str(few) if few == many else f"{few}–{many}"
    return f"n = {problems}, {number} seed" + ("s" if many > 1 else "")
