"""What goes wrong in each row: the share of samples of each error class, stacked."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from marco.errors import UserError
from marco.evaluation.error_classes import PRIMARY
from marco.evaluation.metrics import TRUNCATED
from marco.evaluation.statistics import pooled_share
from marco.reporting.figures import style
from marco.reporting.figures.samples import read_samples
from marco.reporting.grid import Grid, in_percent
from marco.reporting.results import Result
from marco.reporting.rows import Measure, RowSpec, confidence_of, over_seeds
from marco.reporting.samples import RESAMPLES, SEED

COLUMNS = ("id", "error_class", "finish")
LOOKS: tuple[dict[str, Any], ...] = (
    {"facecolor": "#D55E00", "hatch": ""},
    {"facecolor": "#56B4E9", "hatch": "////"},
    {"facecolor": "#F0E442", "hatch": "...."},
)
CUT: dict[str, Any] = {"marker": "v", "markersize": 7, "color": style.INK, "linestyle": "none"}
NARROW = 6  # % of an axis that a number in a stack needs


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Samples of a row on a task by class, as shares in 0..1 that add up to `any_class`.

    A sample counts once, for the class that stands for it. `cut` were cut off, of a class or not;
    None where that is not told.
    """

    row: str
    title: str
    task: str
    n: int
    seeds: int
    shares: tuple[float, ...]
    any_class: Measure
    cut: float | None


def read_stacks(rows: Sequence[RowSpec], results: Sequence[Result]) -> tuple[list[Stack], float]:
    """The stacks of each row and task, as means over seeds, and the confidence of the intervals.

    Rows without samples are left out; UserError where none has some, and for an unknown class.
    """
    confidence = confidence_of(results)
    found: dict[tuple[RowSpec, str], list[list[dict[str, Any]]]] = {}
    for row, result, samples in read_samples(rows, results, columns=COLUMNS):
        for task, own in samples.items():
            unknown = {s["error_class"] for s in own} - {None, *PRIMARY}
            if unknown:
                raise UserError(
                    f"{result.folder}: unknown error class {sorted(unknown)[0]!r}: evaluate again"
                )
            found.setdefault((row, task), []).append(own)
    assert confidence is not None  # there are samples beside results
    return [_stack(*key, seeds, confidence) for key, seeds in found.items()], confidence


@style.styled
def error_class_stacks(
    name: str, rows: Sequence[RowSpec], stacks: Sequence[Stack], *, confidence: float
) -> Figure:
    """One panel a task, one bar a row: the share of each error class, in % of all samples.

    Beside each bar stands the share of samples of any class, with its interval.
    """
    if not stacks:
        raise UserError(f"{name}: there is no row with error classes to show")
    tasks = list(dict.fromkeys(stack.task for stack in stacks))
    title = f"{name}: error classes of each row"
    figure, panels = style.row_panels(title, len(tasks), [row.title for row in rows], more=1.2)
    for task, axes in zip(tasks, panels, strict=True):
        own = {stack.row: stack for stack in stacks if stack.task == task}
        highs = [s.any_class.high for s in own.values()] + [s.cut or 0 for s in own.values()]
        end = style.limit(100 * high for high in highs)
        for at, row in enumerate(rows):
            if row.recipe in own:
                _draw(axes, at, own[row.recipe], end)
            else:
                axes.text(
                    0.01 * end, at, "no samples", va="center", color=style.QUIET, style="italic"
                )
        axes.set_xlim(0, end)
        style.clear(axes, grid="x")
        told = style.counted([s.n for s in own.values()], [s.seeds for s in own.values()])
        axes.set_title(style.wrapped(f"{task} ({told})", 36), loc="left", fontsize=10.5)
        axes.set_xlabel("samples, %")
    style.row_legend(figure, _legend(stacks, confidence), tasks=len(tasks))
    return figure


def class_grid(stacks: Sequence[Stack], *, confidence: float) -> Grid:
    """The same in figures: the share of each class, of any, and of what was cut off."""
    return Grid(
        name="error_classes",
        title="Error classes of each row",
        heads=(
            *("row", "task", "n × seeds", *(f"{name}, %" for name in PRIMARY)),
            *("any class, %", "cut off, %"),
        ),
        rows=tuple(
            (
                *(stack.title, stack.task, f"{stack.n} × {stack.seeds}"),
                *(100 * share for share in stack.shares),
                in_percent(stack.any_class),
                None if stack.cut is None else 100 * stack.cut,
            )
            for stack in stacks
        ),
        notes=(
            "Shares of all samples, each counted for the one class that stands for it; any class "
            f"with {confidence:.0%} intervals.",
        ),
    )


def _stack(
    row: RowSpec, task: str, seeds: Sequence[Sequence[dict[str, Any]]], confidence: float
) -> Stack:
    totals, shares, cuts, problems, most = [], [], [], [], 1
    for samples in seeds:
        by_problem: dict[Any, list[bool]] = {}
        for sample in samples:
            by_problem.setdefault(sample["id"], []).append(sample["error_class"] is not None)
        hits, sizes = (
            [sum(own) for own in by_problem.values()],
            [len(o) for o in by_problem.values()],
        )
        interval = pooled_share(
            hits,
            sizes,
            confidence=confidence,
            resamples=RESAMPLES,
            rng=np.random.default_rng(SEED),
        )
        totals.append((sum(hits) / sum(sizes), interval))
        classes = [sample["error_class"] for sample in samples]
        shares.append([classes.count(name) / len(samples) for name in PRIMARY])
        cuts.append([sample["finish"] for sample in samples])
        problems.append(len(by_problem))
        most = max(most, *sizes)
    told = all(finish is not None for own in cuts for finish in own)
    return Stack(
        row=row.recipe,
        title=row.title,
        task=task,
        n=min(problems),
        seeds=len(seeds),
        shares=tuple(fmean(column) for column in zip(*shares, strict=True)),
        any_class=over_seeds(
            totals,
            n=min(problems),
            kind="wilson" if most == 1 else "bootstrap",
            confidence=confidence,
        ),
        cut=fmean(own.count(TRUNCATED) / len(own) for own in cuts) if told else None,
    )


def _draw(axes: Axes, at: int, stack: Stack, end: float) -> None:
    left = 0.0
    for share, looks in zip(stack.shares, LOOKS, strict=True):
        width = 100 * share
        axes.barh(at, width, left=left, height=0.56, edgecolor=style.INK, linewidth=0.6, **looks)
        if width > NARROW * end / 100:
            axes.text(
                left + width / 2,
                at,
                f"{width:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        left += width
    total = stack.any_class
    axes.errorbar(
        100 * total.value,
        at + 0.36,
        xerr=[[100 * (total.value - total.low)], [100 * (total.high - total.value)]],
        color=style.INK,
        capsize=2.5,
        linewidth=1.1,
        clip_on=False,
    )
    if stack.cut is not None:
        axes.plot(100 * stack.cut, at - 0.34, clip_on=False, **CUT)
    axes.annotate(
        f"{100 * total.value:.1f}",
        (1.015, at),
        xycoords=("axes fraction", "data"),
        va="center",
        color=style.INK,
        annotation_clip=False,
    )


def _legend(stacks: Sequence[Stack], confidence: float) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(label=name.replace("_", " "), edgecolor=style.INK, linewidth=0.6, **looks)
        for name, looks in zip(PRIMARY, LOOKS, strict=True)
    ]
    measures = [stack.any_class for stack in stacks]
    interval = style.interval_label(measures, confidence)
    whiskers = {"marker": "|", "markersize": 8, "color": style.INK, "linewidth": 1.3}
    handles.append(
        Line2D([], [], label=f"of any class (number at the right): {interval}", **whiskers)
    )
    if any(stack.cut is not None for stack in stacks):
        handles.append(Line2D([], [], label="cut off, of a class or not", **CUT))
    return handles
