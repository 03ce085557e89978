"""Figures that stand beside a table, in rows and columns, in every form that a table has."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import ClassVar

from marco.reporting.formats import NOTHING, latex_cell, latex_float, markdown_cell
from marco.reporting.rows import Measure


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


def in_percent(share: Measure) -> Estimate:
    """A share and its interval, in %."""
    return Estimate(value=100 * share.value, low=100 * share.low, high=100 * share.high)


Value = str | int | float | Estimate | None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`name` is that of its files; a head that ends in % is of values in %, None is not known."""

    KINDS: ClassVar[tuple[str, ...]] = ("md", "csv", "tex", "json")

    name: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...]

    def files(self) -> dict[str, str]:
        """Markdown, CSV, LaTeX and JSON by file name."""
        forms = (self.markdown, self.comma_separated, self.latex, self.as_json)
        return {f"{self.name}.{k}": form() for k, form in zip(self.KINDS, forms, strict=True)}

    def markdown(self) -> str:
        """As in a table, its title above and its notes below."""
        lines = [
            f"#### {markdown_cell(self.title)}",
            "",
            f"| {' | '.join(map(markdown_cell, self.heads))} |",
            "|---|" + "---:|" * (len(self.heads) - 1),
            *(f"| {' | '.join(map(markdown_cell, texts))} |" for texts in self._texts()),
            "",
            *(f"- {markdown_cell(note)}" for note in self.notes),
        ]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A float to `\\input`, with the packages of a table's."""
        head = " & ".join(map(latex_cell, self.heads))
        body = [" & ".join(map(latex_cell, texts)) for texts in self._texts()]
        return latex_float(
            self.title, columns=len(self.heads), head=[rf"{head} \\"], body=body, notes=self.notes
        )

    def comma_separated(self) -> str:
        """For programs: a figure with an interval is three columns, what is not known is empty."""
        bounded = [any(isinstance(row[i], Estimate) for row in self.rows) for i in self._places()]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            name
            for head, has_bounds in zip(self.heads, bounded, strict=True)
            for name in ((head, f"{head} low", f"{head} high") if has_bounds else (head,))
        )
        for row in self.rows:
            line: list[object] = []
            for value, has_bounds in zip(row, bounded, strict=True):
                if isinstance(value, Estimate):
                    line += [f"{each:.6g}" for each in (value.value, value.low, value.high)]
                else:
                    line += [value, *([None, None] if has_bounds else [])]
            writer.writerow(line)
        return out.getvalue()

    def as_json(self) -> str:
        """For programs, whole."""
        rows = [
            {
                head: asdict(value) if isinstance(value, Estimate) else value
                for head, value in zip(self.heads, row, strict=True)
            }
            for row in self.rows
        ]
        record = {"schema": 1, "title": self.title, "rows": rows, "notes": self.notes}
        return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _places(self) -> range:
        return range(len(self.heads))

    def _texts(self) -> list[list[str]]:
        return [
            [_text(value, head) for value, head in zip(row, self.heads, strict=True)]
            for row in self.rows
        ]


def _text(value: Value, head: str) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    middle = value.value if isinstance(value, Estimate) else value
    digits = 0 if isinstance(value, int) else 1 if head.endswith("%") else _digits(middle)
    if isinstance(value, Estimate):
        return f"{middle:,.{digits}f} [{value.low:,.{digits}f}, {value.high:,.{digits}f}]"
    return f"{middle:,.{digits}f}"


def _digits(value: float) -> int:
    """Those behind the point that make three in all."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
