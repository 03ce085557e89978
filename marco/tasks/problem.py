"""A problem with its gold answer."""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem of a task; `answer` is the gold answer in the task's canonical form.

    `follow_ups` are what the user says next in a conversation, each with a gold of its own; the
    model's own replies lie between them. `group` is what the task's figures are also told for (a
    language, say).
    """

    id: str
    problem: str
    answer: str
    follow_ups: "tuple[Problem, ...]" = ()
    group: str | None = None
