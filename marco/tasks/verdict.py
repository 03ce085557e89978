"""Verdicts: no answer is not a wrong answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CORRECT = "correct"
WRONG = "wrong"
NO_ANSWER = "no_answer"


@dataclass(frozen=True)
class Verdict:
    """`verdict` is `correct`, `wrong` or `no_answer`; `answer` what it reads; `why` the rule.

    `is_flagged` where the grader came to no verdict of its own (a time-out, say): it counts as
    wrong. `details` is what a task's own figures are made of.
    """

    verdict: str
    answer: str | None
    why: str
    is_flagged: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
