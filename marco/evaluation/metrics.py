"""From graded samples to a task's accuracy and no-answer ratio, with n and intervals."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from marco.errors import UserError
from marco.evaluation.statistics import wilson
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG

VERDICTS = (CORRECT, WRONG, NO_ANSWER)
TRUNCATED = "length"


def summarise(samples: Iterable[Mapping[str, Any]], *, confidence: float) -> dict[str, Any]:
    """Figures of one task from its graded samples, shares in 0..1 of all `n` samples.

    A sample has `id` and `verdict`, and where known `tokens`, `finish`, `error_class`, `turn`,
    `try`. Intervals are Wilson's at `confidence`; they take samples as independent, so several
    tries at one problem make them too narrow. `tokens_mean` and `truncated` (share that ended with
    finish `length`) are None unless every sample tells. UserError for no samples, an unknown
    verdict, or a sample counted twice.
    """
    rows = list(samples)
    _check(rows)
    n = len(rows)
    verdicts = Counter(row["verdict"] for row in rows)
    tokens = [row["tokens"] for row in rows if row.get("tokens") is not None]
    finishes = [row.get("finish") for row in rows]
    errors = Counter(row["error_class"] for row in rows if row.get("error_class"))
    return {
        "n": n,
        "confidence": confidence,
        "accuracy": verdicts[CORRECT] / n,
        "accuracy_interval": list(wilson(verdicts[CORRECT], n, confidence=confidence)),
        "no_answer": verdicts[NO_ANSWER] / n,
        "no_answer_interval": list(wilson(verdicts[NO_ANSWER], n, confidence=confidence)),
        "truncated": None if None in finishes else finishes.count(TRUNCATED) / n,
        "tokens_mean": sum(tokens) / n if len(tokens) == n else None,
        "error_classes": dict(sorted(errors.items())),
    }


def _check(rows: list[Mapping[str, Any]]) -> None:
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
