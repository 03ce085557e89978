"""The margin of each preference pair against its difference of lengths, and their correlation.

A student that tells chosen from rejected by their lengths has its pairs along a slope.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, correlation, linear_regression
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from marco.errors import UserError
from marco.losses import PREFERENCE_LOSSES
from marco.manifest import CONFIG, order_of
from marco.reporting.figures import style
from marco.reporting.results import Result, student_behind
from marco.reporting.rows import RowSpec, confidence_of
from marco.training.pairs_csv import FILE, read_pairs

MANY = 2000  # points from which on an SVG holds them as a picture: as shapes they would fill it
CROWD = 400  # points from which on they are drawn smaller and paler
MARKERS = ("o", "^", "s")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs of a student of one row and seed, as its last epoch took them.

    `margins` are differences of log-ratios to the reference, in nats, or of log-probabilities where
    the loss has no reference, which go with length by themselves; `differences` are tokens of the
    chosen chain less those of the rejected one.
    """

    row: str
    title: str
    seed: int
    margins: tuple[float, ...]
    differences: tuple[float, ...]
    has_reference: bool = True

    @property
    def correlation(self) -> float | None:
        """Pearson's, None where either does not vary."""
        if len(set(self.margins)) < 2 or len(set(self.differences)) < 2:
            return None
        return correlation(self.margins, self.differences)

    @property
    def right(self) -> float:
        """The share of pairs whose margin is above 0, in 0..1."""
        return sum(margin > 0 for margin in self.margins) / len(self.margins)


def pairs_of(
    rows: Sequence[RowSpec], results: Sequence[Result]
) -> tuple[list[Pairs], float | None]:
    """The pairs of the students that the results are of, rows and seeds in their order.

    Rows whose student learnt from no pairs are left out. The confidence is that of the results.
    UserError where no student has a `pairs.csv`, and where one is none.
    """
    found = []
    for row in rows:
        for result in sorted(results, key=lambda result: result.seed):
            student = student_behind(result.folder) if result.row == row.recipe else None
            if student is not None and (pairs := read_pairs(student)):
                one = Pairs(
                    row=row.recipe,
                    title=row.title,
                    seed=result.seed,
                    margins=tuple(pair["margin_nats"] for pair in pairs),
                    differences=tuple(pair["length_difference_tokens"] for pair in pairs),
                    has_reference=_has_reference(student),
                )
                found.append(one)
    if not found:
        raise UserError(
            f"no row's student has a {FILE} beside it: train one on preference pairs (students of "
            "before it was written have to be trained again)"
        )
    return found, confidence_of(results)


def interval(r: float, n: int, *, confidence: float) -> tuple[float, float] | None:
    """Fisher's interval (1921) of a correlation of n independent pairs; None for n < 4 or |r| = 1.

    Pairs of one problem depend on each other, so that it errs on the narrow side.
    """
    if n < 4 or abs(r) >= 1:
        return None
    half = NormalDist().inv_cdf((1 + confidence) / 2) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


@style.styled
def margin_length_scatter(name: str, pairs: Sequence[Pairs], *, confidence: float | None) -> Figure:
    """One panel a row, one point a pair: margin in nats over difference of lengths in tokens.

    Each tells n, Pearson's r (of one seed with its interval) and the share of margins above 0, and
    has the line of least squares.
    """
    if not pairs:
        raise UserError(f"{name}: there are no pairs to show")
    rows = list(dict.fromkeys(one.row for one in pairs))
    down, across = style.panels(len(rows))
    titles = {row: _title([one for one in pairs if one.row == row], confidence) for row in rows}
    lines = max(title.count("\n") for title in titles.values())
    figure = style.begin(
        f"{name}: margin of each preference pair against its difference of lengths",
        width=max(3.9 * across, 7),
        height=0.9 + down * (3.0 + 0.17 * lines),
    )
    panels = figure.subplots(down, across, sharex=True, squeeze=False).flat
    for row, axes in zip(rows, panels, strict=False):
        _draw(axes, [one for one in pairs if one.row == row])
        axes.set_title(titles[row], loc="left", fontsize=9)
        has_reference = all(one.has_reference for one in pairs if one.row == row)
        axes.set_ylabel("margin, nats" if has_reference else "margin without reference, nats")
        axes.set_xlabel("tokens, chosen less rejected")
        axes.tick_params(labelbottom=True)
    for axes in list(panels):
        axes.remove()
    figure.legend(
        handles=_legend(pairs), loc="outside lower left", ncols=3, frameon=False, fontsize=9
    )
    return figure


def _has_reference(student: Path) -> bool:
    """Whether the loss that the student has learnt by reads one."""
    if not (student / CONFIG).is_file():
        return True
    loss = order_of(student)["config"]["loss"]["preference"]["name"]
    return loss not in PREFERENCE_LOSSES or PREFERENCE_LOSSES[loss].uses_reference


def _title(own: Sequence[Pairs], confidence: float | None) -> str:
    n = sorted({len(one.margins) for one in own})
    several = len(own) > 1
    facts = [f"n = {n[0]:,}" + (f"–{n[-1]:,}" if len(n) > 1 else "") + " pairs"]
    told = ["undefined" if one.correlation is None else f"{one.correlation:.2f}" for one in own]
    facts.append(f"r = {', '.join(told)}" + (" by seed" if several else ""))
    r = own[0].correlation
    bounds = interval(r, n[0], confidence=confidence) if r is not None and confidence else None
    if bounds and not several:
        facts[-1] += f" [{bounds[0]:.2f}, {bounds[1]:.2f}]"
    share = sum(one.right for one in own) / len(own)
    facts.append(f"margin > 0 in {share:.0%}")
    return f"{style.wrapped(own[0].title, 42)}\n{style.wrapped('; '.join(facts), 42)}"


def _draw(axes: Axes, own: Sequence[Pairs]) -> None:
    axes.axhline(0, color=style.QUIET, linewidth=0.8)
    axes.axvline(0, color=style.QUIET, linewidth=0.8)
    crowd = min(1.0, (CROWD / sum(len(one.margins) for one in own)) ** 0.5)
    for i, one in enumerate(own):
        axes.scatter(
            one.differences,
            one.margins,
            s=18 * crowd,
            marker=MARKERS[i % len(MARKERS)],
            facecolor="none",
            edgecolor=style.COLOURS[i % len(style.COLOURS)],
            alpha=0.3 + 0.4 * crowd,
            linewidth=0.8,
            rasterized=len(one.margins) > MANY,
        )
    differences = [x for one in own for x in one.differences]
    margins = [y for one in own for y in one.margins]
    if len(set(differences)) > 1:
        slope, start = linear_regression(differences, margins)
        ends = [min(differences), max(differences)]
        heights = [slope * x + start for x in ends]
        axes.plot(ends, heights, color="white", linewidth=4)  # so that it shows on a cloud
        axes.plot(ends, heights, color=style.INK, linewidth=1.4, linestyle="--")
    style.clear(axes, grid="both")


def _legend(pairs: Sequence[Pairs]) -> list[Line2D]:
    by_row: dict[str, list[int]] = {}
    for one in pairs:
        by_row.setdefault(one.row, []).append(one.seed)
    most = max(map(len, by_row.values()))
    handles = []
    for i in range(most):
        seeds = sorted({own[i] for own in by_row.values() if len(own) > i})
        told = "" if most == 1 else f", seed {' or '.join(map(str, seeds))}"
        looks: dict[str, Any] = {
            "marker": MARKERS[i % len(MARKERS)],
            "markeredgecolor": style.COLOURS[i % len(style.COLOURS)],
        }
        handles.append(
            Line2D([], [], linestyle="none", markerfacecolor="none", label=f"a pair{told}", **looks)
        )
    line = Line2D([], [], color=style.INK, linestyle="--", label="least squares")
    return [*handles, line]
