"""Several tries at a problem: whether one of k solves it, and what most of them answer."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marco.errors import UserError
from marco.tasks.verdict import NO_ANSWER


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What the tries at a problem say together; `answer` is None where none of them answers."""

    answer: str | None
    verdict: str
    is_tied: bool


def solved_within(k: int, *, tries: int, correct: int) -> float:
    """The chance, in 0..1, that of `k` tries drawn from `tries` one or more are `correct`.

    1 - C(n - c, k) / C(n, k), unbiased for k tries of the student; solved-or-not of the first k is
    unbiased too, and noisier. UserError where there are fewer than k tries: then it is undefined.
    Source: arXiv 2107.03374, equation 1, in whole numbers.
    """
    if not 0 <= correct <= tries or k < 1:
        raise UserError(
            f"{correct} correct of {tries} tries, k = {k}: expected 0 <= c <= n, k >= 1"
        )
    if tries < k:
        raise UserError(f"Test@{k} is undefined for {tries} tries: take decoding.tries={k} or more")
    return 1 - math.comb(tries - correct, k) / math.comb(tries, k)


def said(sample: Mapping[str, Any]) -> Any:
    """What a sample votes for, by which answers are compared."""
    return sample.get("answer") if sample.get("vote") is None else sample["vote"]


def majority(samples: Sequence[Mapping[str, Any]]) -> Vote:
    """The answer that most tries at one problem give, with the verdict on its first one.

    Answers are one where their canonical forms (`vote`, by `Task.answer_of`) are, or the answers as
    they stand where that is not told; tries without an answer have no vote. Of answers with the
    same number of votes the one that came first wins, and `is_tied` tells of it. The gold answer
    has no part in the vote.
    """
    answered = [s for s in samples if s["verdict"] != NO_ANSWER]
    votes = Counter(str(said(s)) for s in answered)  # in the order of first occurrence
    if not votes:
        return Vote(answer=None, verdict=NO_ANSWER, is_tied=False)
    (answer, most), *others = votes.most_common()
    first = next(s for s in answered if str(said(s)) == answer)
    tied = any(count == most for _, count in others)
    return Vote(answer=answer, verdict=first["verdict"], is_tied=tied)
