"""The paper's own tables, as package data, to stand beside ours."""

from difflib import get_close_matches
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from marco.errors import UserError


class PaperTable(BaseModel):
    """A table of the paper: `rows[recipe][column]` is (accuracy, no-answer ratio), both in %."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    student: str
    columns: dict[str, str]
    rows: dict[str, dict[str, tuple[float, float]]]


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
    nearest = get_close_matches(got, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {what} {got!r}: expected one of {', '.join(known)}{hint}"
