"""Compares two ways of decoding: problems solved in as many tries, and for as many tokens.

python -m marco.reporting test_at A B

A and B are scores folders with several tries at the same problems: samples and trees, say.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marco.errors import UserError
from marco.evaluation.statistics import sign_flips, wilson
from marco.reporting.results import collect
from marco.reporting.samples import FILE
from marco.tasks.verdict import CORRECT

DESCRIPTION = "Compare two ways of decoding at equal tries, and at equal tokens."
# By problem (its id and prompt): tokens spent by then, and whether right, in the order of tries.
Tries = dict[tuple[str, str], list[tuple[int, bool]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside `--json`."""
    parser.add_argument("a", type=Path, metavar="A", help="a scores folder")
    parser.add_argument("b", type=Path, metavar="B", help="another")


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the command."""
    return compare_tries(options.a, options.b)


def compare_tries(a: Path, b: Path) -> dict[str, Any]:
    """Test@k of both sides by tries and by tokens, for each task, as JSON; shares in 0..1.

    A problem is solved in k tries if one of the first k is right, and for t tokens if a try is that
    was there when t tokens had been generated for it. Intervals are Wilson's; p is of McNemar's
    exact test on the problems. UserError where there are no samples with their tokens, or the
    problems or the numbers of tries differ.
    """
    sides = [_read(folder) for folder in (a, b)]
    [confidence] = {task.confidence for task in collect([a])[0].tasks.values()}
    tasks = [task for task in sides[0] if task in sides[1]]
    if not tasks:
        raise UserError(f"{a} and {b} share no task")
    return {task: _compare(task, sides[0][task], sides[1][task], confidence) for task in tasks}


def text(told: dict[str, Any]) -> str:
    """The comparison as tables, one line a number of tries, and one a number of tokens."""
    lines = []
    for task, found in told.items():
        lines.append(f"{task}, {found['n']} problems, {found['tries']} tries")
        for name in ("tries", "tokens"):
            lines.append(
                f"  {name:>8}  {'A solves':>22}  {'B solves':>22}  {'p':>7}  tokens of A and B"
            )
            for row in found[f"at_equal_{name}"]:
                shares = (
                    f"{row[side]:.1%} [{row[f'{side}_interval'][0]:.1%}, "
                    f"{row[f'{side}_interval'][1]:.1%}]"
                    for side in ("a", "b")
                )
                spent = f"{row['a_tokens']:,.0f} and {row['b_tokens']:,.0f}"
                cells = "  ".join(f"{share:>22}" for share in shares)
                lines.append(f"  {row[name]:8,.0f}  {cells}  {row['p']:7.3f}  {spent}")
    return "\n".join(lines) + "\n"


def _compare(task: str, a: Tries, b: Tries, confidence: float) -> dict[str, Any]:
    if a.keys() != b.keys():
        differing = sorted(a.keys() ^ b.keys())
        raise UserError(
            f"{task}: {len(differing)} problems are of one side only, first {differing[0][0]!r}: "
            "evaluate both on the same"
        )
    numbers = {len(tries) for side in (a, b) for tries in side.values()}
    if len(numbers) > 1:
        raise UserError(f"{task}: {min(numbers)} to {max(numbers)} tries at a problem: take equal")
    [tries] = numbers
    ks = sorted({2**i for i in range(tries.bit_length()) if 2**i <= tries} | {tries})

    def row(solved: Sequence[Sequence[bool]], spent: Sequence[float]) -> dict[str, Any]:
        counts, n = [sum(side) for side in solved], len(a)
        differences = [int(x) - int(y) for x, y in zip(*solved, strict=True)]
        figures: dict[str, Any] = {"p": sign_flips(differences)[0]}
        for name, count, tokens in zip("ab", counts, spent, strict=True):
            interval = list(wilson(count, n, confidence=confidence))
            figures |= {name: count / n, f"{name}_interval": interval, f"{name}_tokens": tokens}
        return figures

    by_tries, budgets = [], set()
    for k in ks:
        spent = [_mean([own[k - 1][0] for own in side.values()]) for side in (a, b)]
        solved = [[any(right for _, right in own[:k]) for own in side.values()] for side in (a, b)]
        by_tries.append({"tries": k, **row(solved, spent)})
        budgets.update(round(tokens) for tokens in spent)
    by_tokens = []
    for budget in sorted(budgets):
        within = [[[t for t in own if t[0] <= budget] for own in side.values()] for side in (a, b)]
        solved = [[any(right for _, right in own) for own in side] for side in within]
        spent = [_mean([own[-1][0] if own else 0 for own in side]) for side in within]
        by_tokens.append({"tokens": budget, **row(solved, spent)})
    return {
        "n": len(a),
        "tries": tries,
        "at_equal_tries": by_tries,
        "at_equal_tokens": by_tokens,
    }


def _read(folder: Path) -> dict[str, Tries]:
    """The tries of the first turn, by task and problem."""
    found: dict[str, dict[tuple[str, str], list[tuple[int, int, bool]]]] = {}
    path = folder / FILE
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    if row["turn"] > 1:
                        continue
                    problem = row["id"], row["prompt"]
                    tries = found.setdefault(row["task"], {}).setdefault(problem, [])
                    if row.get("spent") is None:
                        raise UserError(f"{path}, line {number}: the tokens spent are not known")
                    tries.append((row["spent"], row["try"], row["verdict"] == CORRECT))
                except (ValueError, TypeError, KeyError) as error:
                    raise UserError(f"{path}, line {number}: not a graded sample") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return {
        task: {
            problem: [(spent, right) for spent, _, right in sorted(own)]
            for problem, own in sorted(tries.items())
        }
        for task, tries in found.items()
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
