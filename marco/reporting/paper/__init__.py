"""The paper's own tables, as package data, to stand beside ours."""

from collections.abc import Sequence
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from marco.errors import UserError, near

Value = int | float  # with the digits that are printed: 47.0, but 30
Pair = tuple[Value | None, Value | None]
# Results of ours whose column in the paper has another name.
COLUMN_OF = {
    "blocksworld": "planning",
    "multi_if zh": "if_zh",
    "multi_if en": "if_en",
    "multi_if other": "if_other",
}


class PaperTable(BaseModel):
    """A table of the paper, all in %: `rows[row][column]` is (accuracy, no-answer ratio).

    What it does not print is None. `tries[row][column][n]` is the share solved in n tries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    student: str
    columns: dict[str, str]
    rows: dict[str, dict[str, Pair]]
    tries: dict[str, dict[str, dict[int, Value]]] = {}

    def beside(self, tasks: Sequence[str], *, column: str) -> dict[str, str]:
        """The column that stands beside each task: its own.

        Where no task is one of the paper's, `column` stands beside all.
        """
        own = {task: COLUMN_OF.get(task, task) for task in tasks}
        found = {task: name for task, name in own.items() if name in self.columns}
        return found or dict.fromkeys(tasks, column)

    def prints(self, column: str, which: int) -> bool:
        """Whether any row has an accuracy (`which` 0) or a no-answer ratio (1) in a column."""
        return any(row[column][which] is not None for row in self.rows.values() if column in row)


def load_paper(name: str, *, column: str) -> PaperTable:
    """The paper's table `name`; UserError if it is unknown, or has no such `column`."""
    folder = files(__name__)
    known = sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )
    if name not in known:
        raise UserError(_unknown("paper table", name, known))
    table = PaperTable.model_validate(yaml.safe_load(folder.joinpath(f"{name}.yaml").read_text()))
    if column not in table.columns:
        raise UserError(_unknown(f"paper_column of {name}", column, list(table.columns)))
    return table


def _unknown(what: str, got: str, known: list[str]) -> str:
    return f"unknown {what} {got!r}: expected one of {', '.join(known)}{near(got, known)}"
