"""The graded samples of a table's rows, as figures need them."""

from collections.abc import Iterator, Sequence
from typing import Any

from marco.errors import UserError
from marco.reporting.results import Result
from marco.reporting.rows import RowSpec
from marco.reporting.samples import FILE
from marco.tasks.files import read_jsonl

Samples = dict[str, list[dict[str, Any]]]  # by task


def read_samples(
    rows: Sequence[RowSpec], results: Sequence[Result], *, columns: Sequence[str]
) -> Iterator[tuple[RowSpec, Result, Samples]]:
    """The samples of each result that keeps them, rows and seeds in their order.

    Of each sample only the `columns`, which it must have. UserError for a line that is no sample,
    and where no row keeps its samples.
    """
    kept = [
        (row, result)
        for row in rows
        for result in sorted(results, key=lambda result: result.seed)
        if result.row == row.recipe and (result.folder / FILE).is_file()
    ]
    if not kept:
        raise UserError(f"no row has a result with a {FILE}: evaluate a student first")
    for row, result in kept:
        samples: Samples = {}
        for number, line in read_jsonl(result.folder / FILE):
            try:
                own = {name: line[name] for name in columns}
                samples.setdefault(line["task"], []).append(own)
            except KeyError as error:
                raise UserError(
                    f"{result.folder / FILE}, line {number}: no {error}: evaluate again"
                ) from error
        yield row, result, samples
