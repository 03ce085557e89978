"""Whether a figure can be read: no text on another, none without room."""

from itertools import combinations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from marco.reporting.figures.style import COLOURS, MARKERS, STYLE


def texts(figure: Figure) -> list[Text]:
    """The texts that are drawn, after the figure was."""
    with matplotlib.rc_context(STYLE):
        FigureCanvasAgg(figure).draw()
    found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    unseen = {
        id(label) for axes in figure.axes for a in (axes.xaxis, axes.yaxis) for label in _unseen(a)
    }
    return [t for t in found if t.get_visible() and t.get_text().strip() and id(t) not in unseen]


def _unseen(axis: Axis) -> list[Text]:
    """The labels of ticks beyond the axis, and those that are turned off."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    off = [t for t in ticks if not low - 1e-9 <= t.get_loc() <= high + 1e-9]
    labels = [label for tick in off for label in (tick.label1, tick.label2)]
    return labels + [
        label for tick in ticks for label in (tick.label1, tick.label2) if not label.get_visible()
    ]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of which one lies on the other by more than a hair."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.5
    ]


def curves(axes: Axes) -> list[Line2D]:
    """The lines of series, without whiskers and the dots of seeds."""
    return [x for x in axes.lines if x.get_marker() in MARKERS and x.get_color() in COLOURS]


def said(figure: Figure) -> str:
    """All texts of a figure, a line each; lines of one text end to end."""
    return "\n".join(" ".join(t.get_text().split()) for t in texts(figure))
