"""The no-answer ratio of every row: the paper's finding as bars, task by task."""

from matplotlib.figure import Figure

from marco.reporting.figures import style
from marco.reporting.formats import Table
from marco.reporting.picture import draw_bars, label_rows, legend, no_answer, paper_value


@style.styled
def no_answer_bars(table: Table) -> Figure:
    """One panel a task, one bar a row: the share that gives no answer, in %.

    Intervals, single seeds, statuses and the paper's values as in the table's own picture; the axes
    end where their values do.
    """
    tasks = table.tasks or ("",)
    labels = [style.wrapped(row.title) for row in table.rows]
    down, across = style.panels(len(tasks))
    tall = style.row_height(labels) * max(len(labels), 2) + 0.95
    figure = style.begin(
        f"{table.name}: no-answer ratio of each row (lower is better)",
        width=4 + 3.5 * across,
        height=1 + down * tall,
    )
    panels = figure.subplots(down, across, sharey=True, squeeze=False).flat
    for task, axes in zip(tasks, panels, strict=False):
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
    for axes in list(panels):
        axes.remove()
    label_rows(figure.axes[0], labels)
    figure.legend(
        handles=legend(table, [no_answer]),
        loc="outside lower left",
        ncols=1 if across == 1 else 2,
        frameon=False,
        fontsize=9,
    )
    return figure
