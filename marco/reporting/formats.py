"""A table as Markdown, LaTeX, CSV and JSON; the same notes stand under each but CSV."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from marco.reporting.paper import Pair, PaperTable
from marco.reporting.rows import FINISHED, Cell, Measure, Row, measures_of

NOISE = "†"
NOT_COMPARED = "‡"
NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """All that is printed of a table; `confidence` is None as long as nothing is scored."""

    name: str
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    confidence: float | None
    paper: PaperTable | None
    paper_column: str
    left_out: tuple[str, ...]

    @property
    def beside(self) -> dict[str, str]:
        """The paper's column beside each task; beside "" as long as nothing is scored."""
        return (
            self.paper.beside(self.tasks or ("",), column=self.paper_column) if self.paper else {}
        )

    def printed(self, row: Row, column: str) -> Pair:
        """What the paper prints of a row in a column, in %."""
        rows = self.paper.rows if self.paper else {}
        return rows.get(row.recipe, {}).get(column, (None, None))

    @property
    def groups(self) -> list[str]:
        """Within which rows are compared, of those that have results."""
        return list(dict.fromkeys(row.group for row in self.rows if row.cells))

    @property
    def paper_label(self) -> str | None:
        """Whose values the paper's are, and on what."""
        if self.paper is None:
            return None
        names = dict.fromkeys(self.paper.columns[column] for column in self.beside.values())
        return f"{self.paper.student}, {', '.join(names)}"


def markdown(table: Table) -> str:
    """The table as Markdown, a heading before it and its notes after it."""
    heads = [markdown_cell(f"{group} {name}".strip()) for group, name in _columns(table)]
    lines = [
        f"### {markdown_cell(table.name)}",
        "",
        "| " + " | ".join(heads) + " |",
        "|---|" + "---:|" * (len(heads) - 1),
    ]
    for row in table.rows:
        texts = [(markdown_cell(text), is_best) for text, is_best in _cells(row, table)]
        cells = [f"**{text}**" if is_best else text for text, is_best in texts]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {markdown_cell(note)}" for note in notes(table))]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """The table as a LaTeX `table` float to `\\input`; needs the packages booktabs and graphicx."""
    columns = _columns(table)
    groups: list[tuple[str, int]] = []
    for group, _ in columns:
        if groups and groups[-1][0] == group:
            groups[-1] = (group, groups[-1][1] + 1)
        else:
            groups.append((group, 1))
    heads, rules, at = [], [], 1
    for group, width in groups:
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_cell(group)}}}" if group else "")
        if group:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    texts = [
        [(latex_cell(text), is_best) for text, is_best in _cells(row, table)] for row in table.rows
    ]
    body = [[rf"\textbf{{{text}}}" if is_best else text for text, is_best in row] for row in texts]
    return latex_float(
        table.name,
        columns=len(columns),
        head=[
            " & ".join(heads) + r" \\",
            "".join(rules),
            " & ".join(latex_cell(name) for _, name in columns) + r" \\",
        ],
        body=[" & ".join(cells) for cells in body],
        notes=notes(table),
    )


def latex_float(
    caption: str, *, columns: int, head: Sequence[str], body: Sequence[str], notes: Sequence[str]
) -> str:
    """A `table` float around rows that are LaTeX already; caption and notes are plain text."""
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{latex_cell(caption)}}}",
        # Shrinks a table that is too wide for the page, and leaves others as they are.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{l" + "r" * (columns - 1) + "}",
        r"\toprule",
        *head,
        r"\midrule",
        *(rf"{row} \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize",
        *(latex_cell(note) + r"\par" for note in notes),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def comma_separated(table: Table) -> str:
    """The table for programs: one line per row and task, shares in %, empty where unknown."""
    measures = ("accuracy", "no_answer")
    parts = ("percent", "low", "high", "interval", "per_seed")
    differences = ("difference", "difference_low", "difference_high", "difference_interval")
    differences += ("difference_p",)
    head = ["row", "title", "status", "task", "seeds", "seed_list", "n", "confidence"]
    for name in measures:
        head += [f"{name}_{part}" for part in (*parts, *differences, "within_noise", "best")]
    head += ["tokens_mean", "truncated_percent", "max_tokens"]
    head += ["paper_column", "paper_accuracy_percent", "paper_no_answer_percent"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in table.rows:
        for task in row.cells or [""]:
            line: list[object] = [row.recipe, row.title, row.status, task]
            cell = row.cells.get(task)
            paper = _beside(row, task or next(iter(table.beside), ""), table)
            if cell is None:
                line += [""] * (len(head) - len(line) - len(paper))
            else:
                line += [len(cell.seeds), _joined(cell.seeds), _joined(_distinct(cell.n))]
                line += [table.confidence, *_measured(cell.accuracy), *_measured(cell.no_answer)]
                line += [_or_empty(cell.tokens_mean, 1), _or_empty(cell.truncated, 100)]
                line += [cell.max_tokens or ""]
            writer.writerow(line + paper)
    return out.getvalue()


def as_json(table: Table) -> str:
    """The table for programs, whole: shares in 0..1, the paper's values in % as it prints them."""
    paper = table.paper
    record = {
        "schema": 2,
        "name": table.name,
        "confidence": table.confidence,
        "tasks": table.tasks,
        "paper": paper
        and {
            "source": paper.source,
            "student": paper.student,
            "benchmarks": {task: paper.columns[name] for task, name in table.beside.items()},
        },
        "rows": [
            {
                "row": row.recipe,
                "title": row.title,
                "status": row.status,
                "tasks": {task: asdict(cell) for task, cell in row.cells.items()},
                "paper": {
                    task: {"accuracy_percent": accuracy, "no_answer_percent": silent}
                    for task, column in table.beside.items()
                    for accuracy, silent in [table.printed(row, column)]
                    if accuracy is not None or silent is not None
                },
            }
            for row in table.rows
        ],
        "notes": notes(table),
        "left_out": table.left_out,
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def notes(table: Table) -> list[str]:
    """What the numbers mean: n, seeds, kinds of interval, marks, the paper."""
    measures = measures_of(table.rows)
    lines = []
    if measures:
        percent = f"{100 * (table.confidence or 0):g} %"
        lines.append(
            "Accuracy and no-answer ratio in % of all n problems (no answer counts as not right), "
            f"with {percent} intervals in brackets; n is per seed."
        )
        if any(m.kind == "wilson" for m in measures):
            several = any(m.kind == "wilson" and len(m.per_seed) > 1 for m in measures)
            agree = ", and where all seeds of a row agree exactly" if several else ""
            drawn = any(m.kind == "bootstrap" for m in measures)
            same = ", and where all problems have the same share" if drawn else ""
            told = f"{agree}{same}: Wilson's score interval over the n problems."
            lines.append(f"Rows of one seed{told}")
        if any(m.kind == "bootstrap" for m in measures):
            lines.append(
                "Rows of one seed with several samples a problem (tries, turns): bootstrap over "
                "the n problems (BCa)."
            )
        if any(m.kind == "t" for m in measures):
            lines.append(
                "Rows of several seeds: mean over seeds, with Student's t interval over seeds "
                "(df = seeds − 1), cut to 0..100. It tells the noise of the seeds on these "
                "problems, not that of choosing the problems."
            )
        lines += _comparison_notes(table, percent) + _length_notes(table)
    if table.paper is not None:
        lines.append(
            f"Paper: {table.paper_label}, as printed, without n or intervals "
            f"({table.paper.source}). Where the student or the benchmark is another one, compare "
            "directions, not values."
        )
        if not any(row.recipe in table.paper.rows for row in table.rows):
            lines.append(f"No row here is one of the paper's ({', '.join(table.paper.rows)}).")
    if table.left_out:
        lines.append(f"Scored, but no row of this table: {', '.join(table.left_out)}.")
    return lines


def value_text(measure: Measure, *, first: bool) -> str:
    """`87.5 [80.4, 92.3]` in %, with the mark of its comparison; the first row has none."""
    text = f"{100 * measure.value:.1f} [{100 * measure.low:.1f}, {100 * measure.high:.1f}]"
    return f"{text} {mark(measure, first=first)}".rstrip()


def mark(measure: Measure, *, first: bool) -> str:
    """The sign for how the measure stands to the row above."""
    if first:
        return ""
    if measure.difference is None:
        return NOT_COMPARED
    return NOISE if measure.difference.within_noise else ""


def size_text(row: Row, cell: Cell) -> str:
    """`120 × 3`: problems times seeds, and the row's status while it is not finished."""
    counts = _distinct(cell.n)
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    rest = "" if row.status == FINISHED else f" ({row.status})"
    return f"{n} × {len(cell.seeds)}{rest}"


def _columns(table: Table) -> list[tuple[str, str]]:
    columns = [("", "row")]
    for task in table.tasks:
        columns += [(task, "n × seeds"), (task, "accuracy"), (task, "no answer")]
        columns += [(group, name) for group, name, _, _ in _paper_columns(table, task)]
    if not table.tasks:
        columns.append(("", "status"))
        columns += [(group, name) for group, name, _, _ in _paper_columns(table, "")]
    return columns


def _paper_columns(table: Table, task: str) -> Iterator[tuple[str, str, str, int]]:
    """The paper's columns after those of a task: their heads, the column, and which value of it.

    One that stands beside several tasks comes once, after the last of them.
    """
    column = table.beside.get(task)
    if table.paper is None or column is None or task != _last(table.beside, column):
        return
    for which, name in enumerate(("accuracy", "no answer")):
        if table.paper.prints(column, which):
            yield f"paper {table.paper.columns[column]}", name, column, which


def _last(beside: dict[str, str], column: str) -> str:
    return [task for task, name in beside.items() if name == column][-1]


def _cells(row: Row, table: Table) -> list[tuple[str, bool]]:
    """The texts of a row, and whether each is the best of its column."""
    texts: list[tuple[str, bool]] = [(row.title, False)]
    for task in table.tasks:
        cell = row.cells.get(task)
        if cell is None:
            # A finished row without this task was not asked for it.
            plain = [NOTHING if row.status == FINISHED else row.status, NOTHING, NOTHING]
            texts += [(text, False) for text in plain]
        else:
            texts.append((size_text(row, cell), False))
            for measure in (cell.accuracy, cell.no_answer):
                texts.append((value_text(measure, first=row.is_first), measure.is_best))
        texts += _printed(row, task, table)
    if not table.tasks:
        texts += [(row.status, False), *_printed(row, "", table)]
    return texts


def _printed(row: Row, task: str, table: Table) -> Iterator[tuple[str, bool]]:
    for _, _, column, which in _paper_columns(table, task):
        value = table.printed(row, column)[which]
        yield NOTHING if value is None else str(value), False


def _comparison_notes(table: Table, percent: str) -> list[str]:
    below = measures_of([row for row in table.rows if not row.is_first])
    kinds = {m.difference.kind for m in below if m.difference}
    names = {
        "paired": "paired by problem: a bootstrap over problems (BCa), and McNemar's exact test, "
        "or that of sign flips where a problem has several samples or the metric is official",
        "paired_seeds": "Student's t interval over seeds too, where they vary",
        "newcombe": "without samples of the same problems two unpaired proportions, Newcombe's "
        "hybrid score interval",
        "welch": "without samples of the same problems Welch's t over seeds, where both rows have "
        "several",
    }
    lines = []
    if any(measure.is_best for measure in measures_of(table.rows)):
        lines.append(
            "Bold: better than every other row of its column that has a result, each difference "
            "beyond noise, compared as a row is with the one above it."
        )
    if len(table.groups) > 1:
        lines.append(f"Rows are compared, and bold, within {', '.join(table.groups)} each.")
    if kinds:
        is_paired = bool(kinds & {"paired", "paired_seeds"})
        kinds |= {"paired"} if is_paired else set()
        test = f", or p of the test is {1 - (table.confidence or 0):.2g} or more"
        told = "; ".join(text for kind, text in names.items() if kind in kinds)
        lines.append(
            f"{NOISE} The difference to the row above is within noise: its {percent} interval "
            f"holds zero{test if is_paired else ''} ({told}). Not corrected for the number of "
            "comparisons."
        )
    if any(m.difference is None for m in below):
        other = " (of its group)" if len(table.groups) > 1 else ""
        lines.append(f"{NOT_COMPARED} Not compared: the row above has no result here{other}.")
    return lines


def _beside(row: Row, task: str, table: Table) -> list[object]:
    """The paper's column beside a task, and its values of a row; empty where it prints none."""
    column = table.beside.get(task, "")
    pair = table.printed(row, column)
    if pair == (None, None):
        return ["", "", ""]
    return [column, *("" if value is None else value for value in pair)]


def _length_notes(table: Table) -> list[str]:
    """How long replies could be, where that is known, and the most that were cut off in a row."""
    told = []
    for task in table.tasks:
        cells = [row.cells[task] for row in table.rows if task in row.cells]
        limits = sorted({cell.max_tokens for cell in cells if cell.max_tokens})
        cut = [cell.truncated for cell in cells if cell.truncated is not None]
        if limits:
            most = f" (up to {100 * max(cut):.1f} % of a row's are cut off)" if cut else ""
            told.append(f"{task} {', '.join(map(str, limits))}{most}")
    return [f"Tokens of a reply at most: {'; '.join(told)}."] if told else []


def _measured(measure: Measure) -> list[object]:
    difference = measure.difference
    told: list[object] = [""] * 6
    if difference is not None:
        bounds = (difference.value, difference.low, difference.high)
        p = "" if difference.p is None else f"{difference.p:.4g}"
        told = [*(_or_empty(v, 100) for v in bounds), difference.kind, p, difference.within_noise]
    shares = (measure.value, measure.low, measure.high)
    per_seed = _joined(_or_empty(v, 100) for v in measure.per_seed)
    return [*(_or_empty(v, 100) for v in shares), measure.kind, per_seed, *told, measure.is_best]


def _or_empty(value: float | None, scale: float) -> str:
    return "" if value is None else f"{scale * value:.4f}"


def _distinct(counts: tuple[int, ...]) -> list[int]:
    return sorted(set(counts))


def _joined(values: Iterable[object]) -> str:
    return " ".join(str(value) for value in values)


def markdown_cell(text: str) -> str:
    """A plain text as a cell's Markdown."""
    # An underscore inside a word is no emphasis; escaping it would only hurt reading the source.
    escaped = re.sub(r"([\\`*|]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    # A cell that opens with a bracket would be read as the argument of the \\ before it.
    "[": "{[}", "]": "{]}",
    NOISE: r"\textsuperscript{\dag}", NOT_COMPARED: r"\textsuperscript{\ddag}",
    "–": "--", "−": "$-$", "×": r"$\times$", "α": r"$\alpha$", "β": r"$\beta$", "ε": r"$\epsilon$",
    "σ": r"$\sigma$", "π": r"$\pi$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$",
}  # fmt: skip


def latex_cell(text: str) -> str:
    """A plain text as a cell's LaTeX."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return escaped.replace(r" \%", r"~\%")  # no line break between a number and its %
