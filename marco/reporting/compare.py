"""Compares two students on the problems that both were evaluated on.

python -m marco.reporting compare A B [--json FILE]

A and B are scores folders, or folders that hold some; seeds of one row stand with commas between
them: `compare sft-s0,sft-s1 dpo-s0,dpo-s1`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marco.errors import UserError
from marco.evaluation.paired import Comparison, Run
from marco.evaluation.paired import compare as compare_runs
from marco.reporting.results import Result, collect, find_scores
from marco.reporting.rows import confidence_of
from marco.reporting.samples import FILE, RESAMPLES, SEED, read_runs
from marco.tasks.verdict import CORRECT, NO_ANSWER

DESCRIPTION = "Compare two students on the same problems."
# Each measure with its verdict, and what is said of the side that has the greater share.
MEASURES = {
    "accuracy": (CORRECT, "{more} beats {less}."),
    "no_answer": (NO_ANSWER, "{more} gives no answer more often than {less}."),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside `--json`."""

    def folders(text: str) -> list[Path]:
        return [Path(name) for name in text.split(",") if name]

    for name in ("a", "b"):
        parser.add_argument(
            name,
            type=folders,
            metavar=name.upper(),
            help="scores folder, or what holds some; commas between the seeds of a row",
        )
    parser.add_argument(
        "--resamples",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help="how often problems are drawn again (%(default)s)",
    )
    parser.add_argument(
        "--resampling-seed",
        type=int,
        default=SEED,
        metavar="N",
        help="of these draws (%(default)s)",
    )


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the command."""
    return compare_scores(
        options.a, options.b, resamples=options.resamples, seed=options.resampling_seed
    )


def compare_scores(a: Sequence[Path], b: Sequence[Path], *, resamples: int, seed: int) -> dict:
    """The paired comparison of two rows by task, as JSON; shares and intervals in -1..1.

    `a` and `b` are folders of scores, or such that hold them, each of one row with one or several
    seeds. UserError where they are not, where no task is in all of them, where samples are not
    kept, and where the problems differ.
    """
    if resamples < 1 or seed < 0:
        raise UserError(f"{resamples} resamples, seed {seed}: expected 1 or more, and 0 or more")
    sides = {name: _row(name, folders) for name, folders in (("A", a), ("B", b))}
    results = [result for side in sides.values() for result in side]
    confidence = confidence_of(results)
    assert confidence is not None  # there are results
    tasks = [task for task in results[0].tasks if all(task in r.tasks for r in results)]
    if not tasks:
        raise UserError("A and B share no task: evaluate both on one")
    runs = {name: [_samples(result) for result in side] for name, side in sides.items()}
    told: dict[str, Any] = {}
    for task in tasks:
        pair: list[list[Run]] = [[run[task] for run in runs[name]] for name in ("A", "B")]
        told[task] = {
            measure: _told(
                compare_runs(
                    *pair,
                    verdict=verdict,
                    confidence=confidence,
                    resamples=resamples,
                    rng=np.random.default_rng(seed),
                ),
                sentence,
            )
            for measure, (verdict, sentence) in MEASURES.items()
        }
    rows = {
        name: {
            "row": side[0].row,
            "title": side[0].title,
            "seeds": [result.seed for result in side],
            "folders": [str(result.folder) for result in side],
        }
        for name, side in sides.items()
    }
    method = {"confidence": confidence, "resamples": resamples, "resampling_seed": seed}
    return {**rows, **method, "tasks": told}


def text(told: dict[str, Any]) -> str:
    """The comparison in words; "A beats B" only where the difference is beyond noise."""
    lines = []
    for name in ("A", "B"):
        seeds = ", ".join(map(str, told[name]["seeds"]))
        lines.append(f"{name}: {told[name]['title']} (seed {seeds})")
    for task, measures in told["tasks"].items():
        lines += ["", f"{task}, {measures['accuracy']['n']} problems"]
        for measure, found in measures.items():
            lines += _lines(measure.replace("_", " "), found, told["confidence"])
    return "\n".join(lines) + "\n"


def _row(name: str, folders: Sequence[Path]) -> list[Result]:
    results = collect(find_scores(folders))
    rows = list(dict.fromkeys(result.row for result in results))
    if len(rows) != 1:
        raise UserError(
            f"{name} holds {len(rows)} rows ({', '.join(rows) or 'none'}): name the scores "
            "folders of one, with commas between its seeds"
        )
    return sorted(results, key=lambda result: result.seed)


def _samples(result: Result) -> dict[str, Run]:
    runs = read_runs(result)
    if not runs:
        raise UserError(f"{result.folder} has no {FILE}: a paired comparison needs the samples")
    return runs


def _told(found: Comparison, sentence: str) -> dict[str, Any]:
    more, less = ("A", "B") if found.difference > 0 else ("B", "A")
    if found.more_a == found.more_b == 0:
        verdict = "No difference seen."
    elif found.holds:
        verdict = sentence.format(more=more, less=less)
    else:
        verdict = "The difference is within noise."
    return {
        "a": found.a,
        "b": found.b,
        "n": found.n,
        "difference": found.difference,
        "interval": list(found.interval),
        "over_problems": list(found.over_problems),
        "over_seeds": None if found.over_seeds is None else list(found.over_seeds),
        "noise": found.noise,
        "more_a": found.more_a,
        "more_b": found.more_b,
        "test": found.test,
        "p": found.p,
        "mid_p": found.mid_p,
        "verdict": verdict,
    }


def _lines(measure: str, found: dict[str, Any], confidence: float) -> list[str]:
    low, high = (100 * bound for bound in found["interval"])
    test = {
        "mcnemar": "McNemar's exact test",
        "sign_flips": "exact test of sign flips",
        "drawn_sign_flips": "test of sign flips, drawn",
    }
    return [
        f"  {measure}: A {found['a']:.1%}, B {found['b']:.1%}, A - B "
        f"{100 * found['difference']:+.1f} points, {100 * confidence:g} % interval "
        f"[{low:+.1f}, {high:+.1f}] (noise of {found['noise']})",
        f"    more often with A on {found['more_a']} problems, with B on {found['more_b']}; "
        f"{test[found['test']]}: p {found['p']:.2g}, mid-p {found['mid_p']:.2g}",
        f"    {found['verdict']}",
    ]
