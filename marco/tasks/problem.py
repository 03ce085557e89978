"""A problem with its gold answer."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem of a task; `answer` is the gold answer in the task's canonical form."""

    id: str
    problem: str
    answer: str
