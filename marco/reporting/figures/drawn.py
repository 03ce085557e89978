"""The figures that a table lists, drawn from its rows' scores and what these stand on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from marco.errors import UserError
from marco.manifest import MANIFEST
from marco.reporting.figures import FigureName, style
from marco.reporting.figures.error_classes import class_grid, error_class_stacks, read_stacks
from marco.reporting.figures.lengths import (
    Lengths,
    Source,
    apart,
    dataset_folders,
    length_histograms,
    of_datasets,
    of_scores,
    of_trees,
)
from marco.reporting.figures.margin_length import margin_length_scatter, pairs_of
from marco.reporting.figures.no_answer import no_answer_bars
from marco.reporting.figures.sweep import read_places, sweep_curves, sweep_of
from marco.reporting.figures.test_at import Curve, read_curves, tries_curves, tries_grid
from marco.reporting.formats import Table
from marco.reporting.grid import Grid
from marco.reporting.results import Result, student_behind
from marco.reporting.rows import RowSpec
from marco.reporting.yields import trees_behind
from marco.search.tree import read_trees

KINDS = ("png", "svg")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What figures are drawn from: a table, its rows and their results.

    `swept` holds dotted keys of the config: that of the x-axis of `sweep`, and one that tells its
    curves apart, if any.
    """

    table: Table
    rows: Sequence[RowSpec]
    results: Sequence[Result]
    swept: Sequence[str]


def draw_figures(
    names: Sequence[FigureName], scored: Scored
) -> tuple[dict[str, bytes], dict[str, str]]:
    """The figures as PNG and SVG by file name, and why others cannot be drawn, by name."""
    files, left_out = {}, {}
    for name in names:
        try:
            figure = FIGURES[name](scored)
        except UserError as error:
            left_out[name] = str(error)
            continue
        files |= {f"{name}.{kind}": style.to_bytes(figure, kind) for kind in KINDS}
    return files, left_out


def figure_grids(names: Sequence[FigureName], scored: Scored) -> list[Grid]:
    """What figures that can be drawn show, where the table itself does not tell it."""
    grids = []
    for name in names:
        if name in GRIDS:
            with suppress(UserError):  # told of the figure
                grids.append(GRIDS[name](scored))
    return grids


def _no_answer(scored: Scored) -> Figure:
    return no_answer_bars(scored.table)


def _sweep(scored: Scored) -> Figure:
    if not scored.swept:
        raise UserError("figure sweep: name the key of the config that was swept")
    setting, *apart = scored.swept
    places = read_places(scored.results, setting, apart=next(iter(apart), None))
    return sweep_curves(sweep_of(scored.table, places, setting=setting))


def _chain_lengths(scored: Scored) -> Figure:
    sources = [
        Source(row=row, task=task, folder=folder, trees=trees_behind(folder) or folder)
        for row, student in _behind(scored, student_behind)
        if (student / MANIFEST).is_file()
        for task, own in dataset_folders([student]).items()
        for folder in own
    ]
    return _lengths(scored, sources, of_datasets(apart(sources)))


def _tree_lengths(scored: Scored) -> Figure:
    from marco.engines.prompts import ChatTokenizer

    sources = [
        Source(row=row, task=tree.task, folder=folder, trees=folder)
        for row, folder in _behind(scored, trees_behind)
        for tree in islice(read_trees(folder), 1)
    ]
    student = next((student for _, student in _behind(scored, student_behind)), None)
    if student is None:
        raise UserError("no row has a student, by whose tokenizer chains have a length")
    trees = {
        name: chain.from_iterable(map(read_trees, own)) for name, own in apart(sources).items()
    }
    encode = ChatTokenizer.load(student).encode
    return _lengths(scored, sources, of_trees(trees, encode=encode))


def _lengths(scored: Scored, sources: Sequence[Source], lengths: Sequence[Lengths]) -> Figure:
    is_one_task = len({source.task for source in sources}) == 1
    return length_histograms(scored.table.name, lengths, is_one_task=is_one_task)


def _behind(scored: Scored, found: Callable[[Path], Path | None]) -> Iterator[tuple[str, Path]]:
    """The title of each result's row, and what is found of its scores."""
    titles = {row.recipe: row.title for row in scored.rows}
    for result in scored.results:
        if (folder := found(result.folder)) is not None:
            yield titles.get(result.row, result.row), folder


def _response_lengths(scored: Scored) -> Figure:
    return length_histograms(scored.table.name, of_scores(scored.rows, scored.results))


def _test_at(scored: Scored) -> Figure:
    curves, told = _tries(scored)
    return tries_curves(scored.table.name, curves, **told)


def _tries(scored: Scored) -> tuple[list[Curve], dict[str, Any]]:
    """The curves of all rows, and what is told beside them."""
    table = scored.table
    curves, confidence = read_curves(scored.rows, scored.results)
    beside = {"paper": table.paper, "paper_column": table.paper_column}
    return curves, {"confidence": confidence, **beside}


def _error_classes(scored: Scored) -> Figure:
    stacks, confidence = read_stacks(scored.rows, scored.results)
    return error_class_stacks(scored.table.name, scored.rows, stacks, confidence=confidence)


def _margin_length(scored: Scored) -> Figure:
    pairs, confidence = pairs_of(scored.rows, scored.results)
    return margin_length_scatter(scored.table.name, pairs, confidence=confidence)


FIGURES: Mapping[FigureName, Callable[[Scored], Figure]] = {
    "no_answer": _no_answer,  # a bar a row
    "sweep": _sweep,  # accuracy and no-answer ratio against a swept setting
    "chain_lengths": _chain_lengths,  # of the chains that students learnt, by bucket
    "tree_lengths": _tree_lengths,  # of all correct chains of the trees, by bucket
    "response_lengths": _response_lengths,  # of what students write, by row
    "test_at": _test_at,  # solved within N tries, over tries and tokens
    "error_classes": _error_classes,  # a stack a row
    "margin_length": _margin_length,  # a point a preference pair
}


def _test_at_grid(scored: Scored) -> Grid:
    curves, told = _tries(scored)
    return tries_grid(curves, **told)


def _error_class_grid(scored: Scored) -> Grid:
    stacks, confidence = read_stacks(scored.rows, scored.results)
    return class_grid(stacks, confidence=confidence)


GRIDS: Mapping[FigureName, Callable[[Scored], Grid]] = {
    "test_at": _test_at_grid,
    "error_classes": _error_class_grid,
}
