"""Verdicts: no answer is not a wrong answer."""

from dataclasses import dataclass

CORRECT = "correct"
WRONG = "wrong"
NO_ANSWER = "no_answer"


@dataclass(frozen=True)
class Verdict:
    """`verdict` is `correct`, `wrong` or `no_answer`; `answer` what it reads; `why` the rule."""

    verdict: str
    answer: str | None
    why: str
