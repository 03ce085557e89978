"""The no-answer ratio of every row: the paper's finding as bars, task by task."""

from matplotlib.figure import Figure

from marco.reporting.figures import style
from marco.reporting.formats import Table
from marco.reporting.picture import draw_bars, legend, no_answer, paper_value


@style.styled
def no_answer_bars(table: Table) -> Figure:
    """One panel a task, one bar a row: the share that gives no answer, in %.

    Intervals, single seeds, statuses and the paper's values as in the table's own picture; the axes
    end where their values do.
    """
    tasks = table.tasks or ("",)
    title = f"{table.name}: no-answer ratio of each row (lower is better)"
    figure, panels = style.row_panels(title, len(tasks), [row.label for row in table.rows], more=1)
    for task, axes in zip(tasks, panels, strict=True):
        cells = [row.cells[task] for row in table.rows if task in row.cells]
        papers = [paper_value(table, row, task, 1) for row in table.rows]
        ends = [100 * cell.no_answer.high for cell in cells]
        draw_bars(
            axes,
            table,
            task,
            no_answer,
            which=1,
            colour=style.NO_ANSWER,
            limit=style.limit([*ends, *papers]),
        )
        n = [count for cell in cells for count in cell.n]
        told = f" ({style.counted(n, [len(cell.seeds) for cell in cells])})" if cells else ""
        axes.set_title(style.wrapped(f"{task}{told}", 36), loc="left", fontsize=10.5)
        axes.set_xlabel("no answer, %")
    style.row_legend(figure, legend(table, [no_answer]), tasks=len(tasks))
    return figure
