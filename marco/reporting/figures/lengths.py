"""Lengths of chains and responses in tokens: histogram and kernel density, task by task.

After figure 3 of arXiv 2503.01461: the shortest, medium and longest chains of each task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from marco.data.buckets import Bucket, in_bucket
from marco.data.chains import Encode, chains_of
from marco.errors import UserError
from marco.evaluation.metrics import is_cut_off
from marco.manifest import MANIFEST, read_manifest
from marco.reporting.figures import style
from marco.reporting.figures.samples import read_samples
from marco.reporting.figures.style import INK
from marco.reporting.results import Result
from marco.reporting.rows import RowSpec
from marco.search.tree import Tree
from marco.tasks.verdict import CORRECT

COLUMNS = ("tokens", "finish", "error_classes")  # of samples
BUCKETS: tuple[Bucket, ...] = get_args(Bucket)
# The columns of a dataset that tell lengths, and what they are of.
SIDES = {"tokens": "SFT", "chosen_tokens": "chosen", "rejected_tokens": "rejected"}
MOST_BINS = 100  # of an axis: wider ones would hide what the density shows
STEPS = (1, 2, 5, 10, 20, 25, 50)  # widths of a bin in tokens, and ten, a hundred times them


@dataclass(frozen=True)
class Lengths:
    """Tokens of chains: `series` says what they are, `strip` of which bucket or row.

    `task` is what else they are of: a task, or the rows of a table (see `apart`). Of `cut_off` more
    only the limit is known, and no length.
    """

    task: str
    strip: str
    series: str
    tokens: tuple[int, ...]
    cut_off: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A folder that a row of a table stands on, and the trees that make its lengths what they are.

    `trees` is the folder itself where it holds them, or where it comes from none of ours.
    """

    row: str
    task: str
    folder: Path
    trees: Path


def apart(sources: Sequence[Source]) -> dict[str, list[Path]]:
    """The folders by task; by the rows on them, where rows of a task stand on other trees."""
    rows: dict[str, dict[Path, list[str]]] = {}
    for one in sources:
        own = rows.setdefault(one.task, {}).setdefault(one.trees, [])
        own += [one.row] * (one.row not in own)
    found: dict[str, list[Path]] = {}
    for one in sources:
        name, on_it = one.task, rows[one.task][one.trees]
        if len({tuple(own) for own in rows[one.task].values()}) > 1:
            name = on_it[0] + (f" and {len(on_it) - 1} more" if len(on_it) > 1 else "")
            name += f", {one.task}" if len(rows) > 1 else ""
        own = found.setdefault(name, [])
        own += [one.folder] * (one.folder not in own)
    return found


def of_trees(trees: Mapping[str, Iterable[Tree]], *, encode: Encode) -> list[Lengths]:
    """The correct chains of each tree, in its shortest, medium and longest third, by task.

    `encode` is the student's tokenizer. UserError where no tree has a correct chain.
    """
    found: list[Lengths] = []
    for task, tree in ((task, tree) for task, own in trees.items() for tree in own):
        correct = [chain for chain in chains_of(tree, encode) if chain.verdict == CORRECT]
        for bucket in BUCKETS[:3]:
            tokens = tuple(chain.tokens for chain in in_bucket(correct, bucket))
            found.append(Lengths(task, bucket, "correct chains", tokens))
    return _merged(found, "no tree holds a correct chain")


def of_datasets(folders: Mapping[str, Sequence[Path]]) -> list[Lengths]:
    """SFT, chosen and rejected chains by bucket, of the dataset folders of each task.

    UserError for a folder without a dataset that tells buckets and tokens.
    """
    import datasets

    found: list[Lengths] = []
    for task, folder in ((task, folder) for task, own in folders.items() for folder in own):
        try:
            data: Any = datasets.load_from_disk(str(folder / "dataset"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder} holds no dataset: give one that train.py has made"
            ) from error
        columns = [name for name in SIDES if name in data.column_names]
        if not columns or "bucket" not in data.column_names:
            raise UserError(f"{folder}: its dataset does not tell bucket and tokens of its chains")
        rows = data.select_columns(["bucket", *columns])
        found += [
            Lengths(task, row["bucket"], SIDES[name], (row[name],))
            for name in columns
            for row in rows
        ]
    return _merged(found, "there is no dataset")


def dataset_folders(students: Iterable[Path]) -> dict[str, list[Path]]:
    """The datasets that students, and the ones that they start from, were trained on, by task.

    A dataset that was taken from no trees of ours stands under its own name. UserError for a folder
    that is no finished stage.
    """
    found: dict[str, list[Path]] = {}
    left = list(students)
    while left:
        inputs = read_manifest(left.pop(0))["inputs"]
        if "dataset" in inputs:
            folder = Path(inputs["dataset"]["path"])
            own = found.setdefault(_task_of(folder), [])
            own += [folder] * (folder not in own)
        start = Path(inputs["start"]["path"]) if "start" in inputs else None
        if start is not None and (start / MANIFEST).is_file():
            left.append(start)
    return found


def of_scores(rows: Sequence[RowSpec], results: Sequence[Result]) -> list[Lengths]:
    """Tokens of the responses by task and row, all seeds, tries and turns together.

    Rows without samples are left out. UserError where no row has some that tell their tokens.
    """
    found = [
        Lengths(task, row.title, "responses", (), 1)
        if is_cut_off(sample)
        else Lengths(task, row.title, "responses", (sample["tokens"],))
        for row, _, samples in read_samples(rows, results, columns=COLUMNS)
        for task, own in samples.items()
        for sample in own
        if sample["tokens"] is not None
    ]
    return _merged(found, "no sample tells its tokens")


def _task_of(dataset: Path) -> str:
    inputs = read_manifest(dataset)["inputs"]
    trees = Path(inputs["trees"]["path"]) if "trees" in inputs else None
    if trees is None or not (trees / MANIFEST).is_file():
        return dataset.name
    return read_manifest(trees)["labels"]["task"]["name"]


def _merged(found: Iterable[Lengths], nothing: str) -> list[Lengths]:
    """One of each task, strip and series, strips that are buckets in their order."""
    same: dict[tuple[str, str, str], list[Lengths]] = {}
    for one in found:
        same.setdefault((one.task, one.strip, one.series), []).append(one)
    merged = [
        Lengths(
            *names,
            tuple(count for one in own for count in one.tokens),
            sum(one.cut_off for one in own),
        )
        for names, own in same.items()
    ]
    merged = [one for one in merged if one.tokens or one.cut_off]
    if not merged:
        raise UserError(f"{nothing}: there are no lengths to show")
    places: dict[str, int] = {bucket: place for place, bucket in enumerate(BUCKETS)}
    return sorted(merged, key=lambda one: places.get(one.strip, len(places)))


def density(
    tokens: Sequence[int], at: Sequence[float], *, narrowest: float = 0.0
) -> np.ndarray | None:
    """Gaussian kernel density per token at the places `at` >= 0; None where no value varies.

    What a kernel would put below 0 is reflected, so that all of it lies where lengths can be. The
    bandwidth is Silverman's rule of thumb (1986, equation 3.31),
    0.9 min(sd, interquartile range / 1.34) n^(-1/5), by the sd alone where the quartiles are equal,
    and `narrowest` at least.
    """
    values, counts = np.unique(np.asarray(tokens, dtype=float), return_counts=True)
    if len(values) < 2:
        return None
    spread = float(np.std(tokens, ddof=1))
    quartiles = float(np.subtract(*np.quantile(tokens, [0.75, 0.25]))) / 1.34
    width = max(narrowest, 0.9 * (min(spread, quartiles) or spread) * len(tokens) ** -0.2)
    places = np.asarray(at, dtype=float)[:, None]
    kernels = np.exp(-(((places - values) / width) ** 2) / 2)
    kernels += np.exp(-(((places + values) / width) ** 2) / 2)
    return kernels @ counts / (len(tokens) * width * np.sqrt(2 * np.pi))


def density_curve(lengths: Lengths, *, places: int) -> dict[int, float]:
    """`density` at up to `places` whole numbers of tokens; none where no value varies.

    Its area is the share that was not cut off.
    """
    if not lengths.tokens:
        return {}
    width, end = _bins(lengths.tokens)
    at = sorted({round(place) for place in np.linspace(0, end, places)})
    curve = density(lengths.tokens, at, narrowest=width / 2)
    if curve is None:
        return {}
    ended = len(lengths.tokens) / (len(lengths.tokens) + lengths.cut_off)
    return dict(zip(at, map(float, ended * curve), strict=True))


@style.styled
def length_histograms(
    name: str, lengths: Sequence[Lengths], *, is_one_task: bool = False
) -> Figure:
    """A column of strips for each task, one strip a bucket or row: histogram and kernel density.

    Shares in % of a series' chains per bin of tokens; strips of a column have the same axes, and so
    have columns where they are rows of one task. Each tells n and median. What lies far beyond the
    rest, and what was cut off, is told and not drawn. Tasks stand abreast where their strips are
    the same, else below each other.
    """
    strips: dict[str, list[str]] = {}
    for one in lengths:
        own = strips.setdefault(one.task, [])
        own += [one.strip] * (one.strip not in own)
    if not strips:
        raise UserError(f"{name}: there are no lengths to show")
    series = list(dict.fromkeys(one.series for one in lengths))
    is_same = len({tuple(own) for own in strips.values()}) == 1
    across = style.panels(len(strips))[1] if is_same else 1
    bands = [list(strips)[start : start + across] for start in range(0, len(strips), across)]
    lines = len(series) + sum(
        any(one.cut_off for one in lengths if one.series == name) for name in series
    )
    tall = max(1.05 + 0.14 * (lines - 1), style.row_height(map(_label, sum(strips.values(), []))))
    figure = style.begin(
        f"{name}: lengths in tokens, histogram and kernel density",
        width=2.5 + 3.4 * across,
        height=0.9 + sum(len(strips[band[0]]) * tall + 0.5 for band in bands),
    )
    grid = figure.subplots(sum(len(strips[band[0]]) for band in bands), across, squeeze=False)
    bins = {
        task: _bins([count for one in lengths if one.task == task for count in one.tokens] or [1])
        for task in strips
    }
    end = max(end for _, end in bins.values())
    # The width is that of all rows together: a row of few long chains would hide the others' shape.
    pooled = [count for one in lengths for count in one.tokens] or [1]
    width = max(_width(end / MOST_BINS), _bins(pooled)[0])
    shared = (width, float(width * np.ceil(end / width)))
    top, drawn = 0, []
    for band in bands:
        own = strips[band[0]]
        for column in range(across):
            panels = list(grid[top : top + len(own), column])
            if column < len(band):
                task = band[column]
                _column(panels, task, own, series, lengths, shared if is_one_task else bins[task])
                drawn += panels
            else:
                for axes in panels:
                    axes.remove()
        for axes, strip in zip(grid[top : top + len(own), 0], own, strict=True):
            axes.set_ylabel(_label(strip), rotation=0, ha="right", va="center", labelpad=12)
        top += len(own)
    if is_one_task:
        highest = max(axes.get_ylim()[1] for axes in drawn)
        for axes in drawn:
            axes.set_ylim(0, highest)
    figure.legend(
        handles=[(Patch(**_area(i)), Line2D([], [], **_line(i))) for i in range(len(series))],
        labels=series,
        loc="outside lower left",
        ncols=len(series),
        frameon=False,
        fontsize=9,
        handlelength=3,
    )
    return figure


def _column(
    panels: list[Axes],
    task: str,
    strips: Sequence[str],
    series: Sequence[str],
    lengths: Sequence[Lengths],
    bins: tuple[int, float],
) -> None:
    own = {(one.strip, one.series): one for one in lengths if one.task == task}
    width, end = bins
    edges = np.arange(0, end + width, width)
    at = np.linspace(0, edges[-1], 400)
    peak = 0.0
    for axes, strip in zip(panels, strips, strict=True):
        told = []
        for i, one in enumerate(series):
            if (strip, one) not in own:
                continue
            tokens, cut_off = own[strip, one].tokens, own[strip, one].cut_off
            label = f"{one}: " if len(series) > 1 else ""
            if not tokens:
                told.append(f"{label}n = {cut_off:,}, all cut off")
                continue
            n = len(tokens) + cut_off
            shares = 100 * np.histogram(tokens, edges)[0] / n
            axes.bar(edges[:-1], shares, width=width, align="edge", **_area(i))
            curve = density(tokens, at, narrowest=width / 2)  # a peak within a bin hides the rest
            if curve is not None:
                curve *= 100 * width * len(tokens) / n
                axes.plot(at, curve, **_line(i))
                peak = max(peak, float(curve.max()))
            peak = max(peak, float(shares.max()))
            beyond = sum(count > edges[-1] for count in tokens)
            rest = f", {beyond} beyond, to {max(tokens):,}" if beyond else ""
            median = f"median {float(np.median(tokens)):,.0f}{rest}"
            if cut_off:
                told += [f"{label}n = {n:,}, {cut_off:,} cut off", f"the others: {median}"]
            else:
                told.append(f"{label}n = {n:,}, {median}")
        axes.annotate(
            "\n".join(told),
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
        if axes is panels[0]:
            axes.set_title(task, loc="left", fontsize=10.5, pad=4 + 12 * max(1, len(told)))
    for axes in panels:
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, 1.05 * peak or 1)
        axes.locator_params(axis="y", nbins=3)
        style.clear(axes, grid="both")
        axes.tick_params(labelbottom=axes is panels[-1], labelsize=8)
    per = "token" if width == 1 else f"{width} tokens"
    panels[-1].set_xlabel(f"tokens (height: % of n per {per})", fontsize=9)


def _bins(tokens: Sequence[int]) -> tuple[int, float]:
    """Width of a bin, and where the axis ends: before what is three times as long as nearly all."""
    most = max(tokens)
    common = float(np.quantile(tokens, 0.99))
    end = most if most <= 3 * common else 1.2 * common
    best = max(end / MOST_BINS, 1.0)
    automatic = np.histogram_bin_edges([count for count in tokens if count <= end], bins="auto")
    best = max(best, float(automatic[1] - automatic[0]))
    width = _width(best)
    return width, float(width * max(1, 1 + np.ceil(end / width)))


def _width(least: float) -> int:
    """The least width of a bin that is a round number of tokens."""
    return next(s * 10**p for p in range(9) for s in STEPS if s * 10**p >= least)


def _label(strip: str) -> str:
    return style.wrapped(strip, 24)


def _area(series: int) -> dict[str, Any]:
    colour = style.COLOURS[series]
    hatches = ("", "////", "....", "xxxx")
    face = to_rgba(colour, 0.35) if series == 0 else "none"
    return {"facecolor": face, "edgecolor": to_rgba(colour, 0.55), "hatch": hatches[series % 4]}


def _line(series: int) -> dict[str, Any]:
    return {"color": style.COLOURS[series], "linestyle": style.DASHES[series], "linewidth": 1.6}
