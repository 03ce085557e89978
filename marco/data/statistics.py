"""What a dataset holds, in numbers, and the same as a table for the terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marco.data.chains import Chain
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG

VERDICTS = (CORRECT, WRONG, NO_ANSWER)
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


@dataclass(frozen=True, kw_only=True)
class TreeChains:
    """The distinct chains of one tree: `kept` without those that are too long, or of error classes.

    `finished` counts the tree's chains before duplicates were removed; `erring` holds the classes
    of each chain that was dropped for them. `annotated` counts what people said of them, and
    `matched` are the chains that they spoke of (`Annotations.apply`); those they took out are in
    none of the others.
    """

    status: str
    finished: int
    distinct: tuple[Chain, ...]
    kept: tuple[Chain, ...]
    erring: tuple[frozenset[str], ...] = ()
    annotated: Counter[str] = field(default_factory=Counter)
    matched: frozenset[tuple[str, str]] = frozenset()

    @property
    def duplicates(self) -> int:
        taken_out = self.annotated["discarded"] + self.annotated["disagreed"]
        return self.finished - len(self.distinct) - taken_out

    @property
    def too_long(self) -> int:
        return len(self.distinct) - len(self.kept) - len(self.erring)

    def of(self, verdict: str) -> list[Chain]:
        """The kept chains with a verdict."""
        return [chain for chain in self.kept if chain.verdict == verdict]

    def has(self, verdict: str) -> bool:
        """Whether the search found such a chain, kept or not."""
        return any(chain.verdict == verdict for chain in self.distinct)


def tree_stats(trees: Sequence[TreeChains]) -> dict[str, Any]:
    """What the trees hold before any choice: counts, and quantiles over trees and over chains.

    `solved` trees have a correct chain (a tree's own status may ask for more), `mixed` ones a
    correct and a wrong chain. Chains are counted and measured (in tokens) without duplicates, the
    ones that are dropped included: `dropped_too_long`, and `dropped_error_classes` by class (of a
    chain of two classes both count).
    """
    solved = [tree for tree in trees if tree.has(CORRECT)]
    distinct = [chain for tree in trees for chain in tree.distinct]
    by_verdict = {v: [chain for chain in distinct if chain.verdict == v] for v in VERDICTS}
    per_tree = {"chains": [len(tree.distinct) for tree in trees]} | {
        v: [sum(chain.verdict == v for chain in tree.distinct) for tree in trees] for v in VERDICTS
    }
    erring = Counter(name for tree in trees for names in tree.erring for name in names)
    return {
        "trees": len(trees),
        "by_status": dict(sorted(Counter(tree.status for tree in trees).items())),
        "solved": len(solved),
        "mixed": sum(tree.has(WRONG) for tree in solved),
        "chains": len(distinct),
        "by_verdict": {v: len(chains) for v, chains in by_verdict.items()},
        "duplicates_removed": sum(tree.duplicates for tree in trees),
        "dropped_too_long": sum(tree.too_long for tree in trees),
        "dropped_error_classes": dict(sorted(erring.items())),
        "per_tree": {name: spread(counts) for name, counts in per_tree.items()},
        "tokens": {v: spread([c.tokens for c in chains]) for v, chains in by_verdict.items()},
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """n, mean and quantiles (linear interpolation); None for all but n where there is no value."""
    if not values:
        return {"n": 0, "mean": None} | dict.fromkeys(QUANTILES)
    quantiles = np.quantile(values, list(QUANTILES.values()))
    named = zip(QUANTILES, (float(q) for q in quantiles), strict=True)
    return {"n": len(values), "mean": sum(values) / len(values), **dict(named)}


def format_stats(stats: Mapping[str, Any]) -> str:
    """The statistics of a dataset as a small aligned table, without a final newline."""
    statuses = ", ".join(f"{status} {n}" for status, n in stats["by_status"].items())
    verdicts = ", ".join(f"{v.replace('_', ' ')} {n}" for v, n in stats["by_verdict"].items())
    facts = [
        ("trees", f"{stats['trees']} ({statuses})"),
        ("with a correct chain", f"{stats['solved']}, with a wrong one too {stats['mixed']}"),
        ("distinct chains", f"{stats['chains']} ({verdicts})"),
        ("duplicates removed", str(stats["duplicates_removed"])),
        ("dropped, too long", f"{stats['dropped_too_long']} (over {stats['max_tokens']} tokens)"),
        ("rows", f"{stats['rows']} from {stats['trees_used']} tree(s), bucket {stats['bucket']}"),
    ]
    if dropped := stats["dropped_error_classes"]:
        classes = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in dropped.items())
        facts.insert(5, ("dropped, erring", classes))
    if told := stats.get("annotations"):
        named = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in told.items() if n)
        facts.append(("annotated", named or "none"))
    if "choice" in stats:
        facts.append(("rejected by", stats["choice"].replace("_", " ")))
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    return "\n".join([*lines, "", *_spreads(stats)])


def _spreads(stats: Mapping[str, Any]) -> list[str]:
    rows = {f"{name} per tree": row for name, row in stats["per_tree"].items()}
    rows |= {f"tokens, {name}": row for name, row in stats["tokens"].items()}
    if "shared_prefix_share" in stats:
        rows["shared prefix, % of chosen"] = _percent(stats["shared_prefix_share"])
    columns = ["n", "mean", *QUANTILES]
    table = [["", *columns]]
    for name, row in rows.items():
        table.append([name.replace("_", " "), *(_number(row[column]) for column in columns)])
    return list(_aligned(table))


def _percent(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if name == "n" or value is None else 100 * value for name, value in row.items()
    }


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def _aligned(table: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        cells = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *cells])
