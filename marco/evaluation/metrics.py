"""From graded samples to a task's figures: shares with n and intervals, Test@k, majority votes.

Problems are what an interval is over: samples of one problem (its tries, its turns) depend on each
other. With one sample a problem it is Wilson's, else a bootstrap over problems.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from marco.errors import UserError
from marco.evaluation.statistics import pooled_kind, pooled_share, ratio_with_interval
from marco.evaluation.tries import majority as vote
from marco.evaluation.tries import said, solved_within
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG

VERDICTS = (CORRECT, WRONG, NO_ANSWER)
TRUNCATED = "length"
APART = "truncation"  # an error class that says how a sample ended, not what went wrong
Sample = Mapping[str, Any]
Interval = Callable[[Sequence[float], Sequence[int]], tuple[float, float]]


def summarise(
    samples: Iterable[Sample],
    *,
    confidence: float,
    test_at: Sequence[int],
    majority: bool,
    ordered: bool = False,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Figures of one task from its graded samples; shares in 0..1, of samples unless said.

    A sample has `id` and `verdict`, and where known `turn`, `try`, `group`, `answer`, `tokens`,
    `finish`, `is_flagged`, and `error_classes` (names, or findings with a `name`) or `error_class`.
    `n` counts problems, `n_samples` samples. `intervals` is the kind of the interval of accuracy,
    and each share's own stands beside it as `<share>_kind`: Wilson's too where all problems have
    the same share, which a bootstrap would give no width. `truncated` (ended with finish `length`,
    answered or not) and `tokens_mean` are None unless every sample tells. `truncation` counts what
    is known to be cut off, by its finish, or where that is not told by the class `truncation`:
    with `finish_unknown` above 0 it is the least that was. `majority` are the figures of the
    votes, None without several tries or where verdicts have no answer to vote on; where the
    argument `majority` is set, accuracy and no-answer ratio are the votes' too (`counted`).
    `test_at` maps k to the share of problems that k tries solve, undefined (None, and `why`) for
    more tries than there are: by the unbiased estimator, or by the first k where the tries are
    `ordered`, as those of a tree are, which depend on the ones before. `by_group` and `by_turn`
    hold the same figures of the parts.
    UserError for no samples, an unknown verdict, or a sample counted twice.
    """
    rows = list(samples)
    _check(rows)

    def interval(hits: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
        # Each from the start of the draws: a figure does not depend on which others are told.
        rng = np.random.default_rng(seed)
        return pooled_share(hits, sizes, confidence=confidence, resamples=resamples, rng=rng)

    figures = partial(_figures, interval=interval, confidence=confidence, by_vote=majority)
    return {
        "confidence": confidence,
        **figures(rows),
        "test_at": {str(k): _test_at(k, rows, interval, ordered=ordered) for k in test_at},
        "by_group": {name: figures(part) for name, part in _parts(rows, "group").items()},
        "by_turn": {name: figures(part) for name, part in _parts(rows, "turn").items()},
    }


def class_names(sample: Sample) -> set[str]:
    """The names of the error classes that a sample shows; truncation is counted apart."""
    return _all_classes(sample) - {APART}


def is_cut_off(sample: Sample) -> bool:
    """Whether a sample is known to be cut off: by its finish, or a thought that is left open."""
    finish = sample.get("finish")
    return APART in _all_classes(sample) if finish is None else finish == TRUNCATED


def _all_classes(sample: Sample) -> set[str]:
    found = sample.get("error_classes")
    if found is None:
        found = [sample["error_class"]] if sample.get("error_class") else []
    return {one["name"] if isinstance(one, Mapping) else one for one in found}


def votes_of(rows: Sequence[Sample]) -> list[dict[str, Any]] | None:
    """One sample for each problem and turn: what its tries say together (`tries.majority`).

    None without several tries, and where an answered sample tells no answer.
    """
    units = _units(rows)
    if len(units) == len(rows):
        return None
    if any(row["verdict"] != NO_ANSWER and said(row) is None for row in rows):
        return None
    votes = {unit: vote(own) for unit, own in units.items()}
    return [
        {"id": id, "turn": turn, "verdict": told.verdict, "is_tied": told.is_tied}
        for (id, turn), told in votes.items()
    ]


def _figures(
    rows: Sequence[Sample], *, interval: Interval, confidence: float, by_vote: bool
) -> dict[str, Any]:
    votes = votes_of(rows)
    counted = votes if by_vote and votes else rows
    problems = len({row["id"] for row in rows})
    names = sorted({name for row in rows for name in class_names(row)})
    answers = _answers(counted, interval)
    return {
        "n": problems,
        "n_samples": len(rows),
        "counted": "votes" if counted is votes else "tries",
        "intervals": answers["accuracy_kind"],
        **answers,
        **_truncated(rows, interval),
        "truncation": _truncation(rows, interval),
        "flagged": sum(bool(row.get("is_flagged")) for row in rows),
        **_tokens(rows, confidence),
        "error_classes": {
            name: {"n": sum(name in class_names(row) for row in rows)}
            | _share("share", rows, lambda row, name=name: name in class_names(row), interval)
            for name in names
        },
        "majority": votes
        and {
            **_answers(votes, interval),
            "n": len(votes),
            "tied": sum(told["is_tied"] for told in votes),
        },
    }


def _answers(rows: Sequence[Sample], interval: Interval) -> dict[str, Any]:
    return {
        **_share("accuracy", rows, lambda row: row["verdict"] == CORRECT, interval),
        **_share("no_answer", rows, lambda row: row["verdict"] == NO_ANSWER, interval),
    }


def _truncated(rows: Sequence[Sample], interval: Interval) -> dict[str, Any]:
    """How many samples were cut off, and how many were cut off without an answer."""
    if any(row.get("finish") is None for row in rows):
        return {
            f"{name}{part}": None
            for name in ("truncated", "truncated_no_answer")
            for part in ("", "_interval", "_kind")
        }

    def is_cut(row: Sample) -> bool:
        return row["finish"] == TRUNCATED

    def is_cut_and_silent(row: Sample) -> bool:
        return is_cut(row) and row["verdict"] == NO_ANSWER

    return {
        **_share("truncated", rows, is_cut, interval),
        **_share("truncated_no_answer", rows, is_cut_and_silent, interval),
    }


def _truncation(rows: Sequence[Sample], interval: Interval) -> dict[str, Any]:
    return {
        "n": sum(map(is_cut_off, rows)),
        "finish_unknown": sum(row.get("finish") is None for row in rows),
        **_share("share", rows, is_cut_off, interval),
    }


def _tokens(rows: Sequence[Sample], confidence: float) -> dict[str, Any]:
    if any(row.get("tokens") is None for row in rows):
        return {"tokens_mean": None, "tokens_mean_interval": None}
    sums = _by_problem(rows, lambda row: row["tokens"])
    sizes = _by_problem(rows, lambda row: 1)
    several = len(sums) > 1
    bounds = ratio_with_interval(sums, sizes, confidence=confidence) if several else None
    return {
        "tokens_mean": sum(sums) / len(rows),
        "tokens_mean_interval": bounds and list(bounds),
    }


def _test_at(
    k: int, rows: Sequence[Sample], interval: Interval, *, ordered: bool
) -> dict[str, Any]:
    units = _units(rows)
    tries = min(map(len, units.values()))
    estimator = "first k" if ordered else "unbiased"
    told = {"n": len({row["id"] for row in rows}), "tries": tries, "estimator": estimator}
    if tries < k:
        why = f"undefined: a problem has {tries} tries, and needs {k}"
        return {"value": None, "interval": None, **told, "why": why}
    solved = [
        {"id": id, "value": _solved(k, own, ordered=ordered)} for (id, _), own in units.items()
    ]
    return _share("value", solved, lambda row: row["value"], interval, bounds="interval") | told


def _solved(k: int, own: Sequence[Sample], *, ordered: bool) -> float:
    if ordered:
        return float(_correct(sorted(own, key=lambda row: row["try"])[:k]) > 0)
    return solved_within(k, tries=len(own), correct=_correct(own))


def _share(
    name: str,
    rows: Sequence[Sample],
    value: Callable[[Sample], float],
    interval: Interval,
    *,
    bounds: str | None = None,
) -> dict[str, Any]:
    """The mean of a value in 0..1 over rows, with its interval over problems, and its kind."""
    hits = _by_problem(rows, value)
    sizes = _by_problem(rows, lambda row: 1)
    return {
        name: sum(hits) / sum(sizes),
        bounds or f"{name}_interval": list(interval(hits, sizes)),
        "kind" if bounds else f"{name}_kind": pooled_kind(hits, sizes),
    }


def _by_problem(rows: Sequence[Sample], value: Callable[[Sample], Any]) -> list[Any]:
    """Sums over the rows of each problem, in the order of the problems."""
    sums: dict[Any, Any] = {}
    for row in rows:
        sums[row["id"]] = sums.get(row["id"], 0) + value(row)
    return list(sums.values())


def _units(rows: Sequence[Sample]) -> dict[tuple[Any, Any], list[Sample]]:
    """The tries of each turn of each problem."""
    units: dict[tuple[Any, Any], list[Sample]] = {}
    for row in rows:
        units.setdefault((row["id"], row.get("turn")), []).append(row)
    return units


def _parts(rows: Sequence[Sample], name: str) -> dict[str, list[Sample]]:
    """The rows by group or turn; empty where they all are of the same one."""
    parts: dict[str, list[Sample]] = {}
    for row in rows:
        if row.get(name) is not None:
            parts.setdefault(str(row[name]), []).append(row)
    return dict(sorted(parts.items())) if len(parts) > 1 else {}


def _correct(rows: Sequence[Sample]) -> int:
    return sum(row["verdict"] == CORRECT for row in rows)


def _check(rows: Sequence[Sample]) -> None:
    if not rows:
        raise UserError("no samples to summarise: the task has no problems, or none was answered")
    for row in rows:
        if row["verdict"] not in VERDICTS:
            raise UserError(
                f"sample {row['id']!r} has verdict {row['verdict']!r}: "
                f"expected one of {', '.join(VERDICTS)}"
            )
    seen = Counter((row["id"], row.get("turn"), row.get("try")) for row in rows)
    twice = [key[0] for key, count in seen.items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} samples are counted twice, the first is {twice[0]!r}: "
            "expected one per id, turn and try"
        )
