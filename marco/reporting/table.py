"""One table of an experiment, from the scores that exist so far, in every form it is printed in."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from marco.disk import replace_file
from marco.reporting.figures import FigureName
from marco.reporting.figures.drawn import GRIDS, KINDS, Scored, draw_figures, figure_grids
from marco.reporting.formats import Table, as_json, comma_separated, latex, markdown
from marco.reporting.grid import Grid
from marco.reporting.paper import load_paper
from marco.reporting.picture import picture
from marco.reporting.results import collect
from marco.reporting.rows import RowSpec, build_rows, confidence_of
from marco.reporting.yields import TREES

__all__ = ["RowSpec", "make_table", "write_table"]


def write_table(
    *,
    name: str,
    rows: Sequence[RowSpec],
    folders: Sequence[Path],
    out: Path,
    paper: str | None,
    paper_column: str,
    status: Mapping[str, str],
    names: Sequence[str] | None = None,
    figures: Sequence[FigureName] = (),
    swept: Sequence[str] = (),
    grids: Sequence[Grid] = (),
) -> str:
    """Write table.md, .csv, .tex, .json, .png and .svg into `out`, and return the Markdown.

    The `figures` stand beside it as PNG and SVG, `swept` as in `Scored`; of one that cannot be
    drawn yet the Markdown says why. What they tell that the table does not stands beside it too, as
    `grids` do, and below it in what is returned. Other arguments are those of `make_table`. Each
    file is replaced whole, or left as it was.
    """
    table = make_table(
        name=name,
        rows=rows,
        folders=folders,
        paper=paper,
        paper_column=paper_column,
        status=status,
        names=names,
    )
    shown = [RowSpec(row.recipe, row.label) for row in table.rows]
    scored = Scored(table=table, rows=shown, results=collect(folders, rows=names), swept=swept)
    drawn, left_out = draw_figures(figures, scored)
    lines = [f"- Figure {name} is left out: {reason}" for name, reason in left_out.items()]
    text = markdown(table) + "".join(f"{line}\n" for line in lines)
    beside = [*figure_grids(figures, scored), *grids]
    files = {
        "table.md": text.encode(),
        "table.csv": comma_separated(table).encode(),
        "table.tex": latex(table).encode(),
        "table.json": as_json(table).encode(),
        "table.png": picture(table, kind="png"),
        "table.svg": picture(table, kind="svg"),
        **drawn,
        **{file: content.encode() for grid in beside for file, content in grid.files().items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    # None of other results than the table's.
    gone = [f"{figure}.{kind}" for figure in left_out for kind in KINDS]
    untold = {TREES, *GRIDS} - {grid.name for grid in beside}
    gone += [f"{grid}.{kind}" for grid in untold for kind in Grid.KINDS]
    for file in gone:
        (out / file).unlink(missing_ok=True)
    for file, content in files.items():
        replace_file(out / file, content)
    return "\n".join([text, *(grid.markdown() for grid in beside)])


def make_table(
    *,
    name: str,
    rows: Sequence[RowSpec],
    folders: Sequence[Path],
    paper: str | None,
    paper_column: str,
    status: Mapping[str, str],
    names: Sequence[str] | None = None,
) -> Table:
    """The table as data: results of the scores `folders` joined by (recipe, seed) with `rows`.

    `names` gives the row of each folder, where its scores name another.
    Rows keep their order; one without a result shows `status[recipe]`, or that it is pending.
    `paper` names a table of the paper to stand beside ours (None: none), `paper_column` its
    benchmark where no task is one of the paper's own. Results of no row are named under the table.
    UserError as `collect`, `build_rows` and `load_paper` raise it.
    """
    printed = load_paper(paper, column=paper_column) if paper is not None else None
    results = collect(folders, rows=names)
    recipes = {row.recipe for row in rows}
    used = [result for result in results if result.row in recipes]
    left_out = [f"{r.row} (seed {r.seed})" for r in results if r.row not in recipes]
    return Table(
        name=name,
        tasks=tuple(dict.fromkeys(task for result in used for task in result.tasks)),
        rows=tuple(build_rows(rows, used, status=status)),
        confidence=confidence_of(used),
        paper=printed,
        paper_column=paper_column,
        left_out=tuple(left_out),
    )
