"""What a task is: problems, and one verifier for search, evaluation and grading."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marco.errors import UserError
from marco.tasks.examples import Example
from marco.tasks.files import distinct, read_rows
from marco.tasks.problem import Problem, Split
from marco.tasks.verdict import Verdict


class NoSplit(UserError):
    """A task has no problems of a split, unless a file is given."""


class Task(ABC):
    """Problems by split, and the verdict on a response.

    The same verifier gives the search its reward, an evaluation its verdicts, and grades outputs
    that are there already.
    """

    name: str
    asks_for_thought = True  # False: the answer alone is asked for, and long thinking is an error

    @abstractmethod
    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in a fixed order; UserError where there are none to be had."""

    @abstractmethod
    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        """A row of the benchmark's own form, or of `id`, `problem`, `answer`.

        UserError says what is wrong with line `number` of `source`.
        """

    @abstractmethod
    def verify(self, response: str, problem: Problem) -> Verdict:
        """The verdict on a response to a problem (of a conversation: to that turn)."""

    def verify_all(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """The verdicts on many (response, problem), in their order."""
        return [self.verify(response, problem) for response, problem in items]

    def answer_of(self, response: str, problem: Problem) -> str | None:
        """The answer that a response gives, right or wrong, by which answers are compared."""
        return self.verify(response, problem).answer

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Worked examples for the prompt of the search."""
        return ()

    def figures(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The task's own figures beside accuracy and no-answer ratio, of its graded samples."""
        return {}

    def read(self, path: Path) -> list[Problem]:
        """The problems of a file; UserError for a malformed line, or an id that occurs twice."""
        rows = read_rows(path)
        return distinct([self.parse(row, n, str(path)) for n, row in rows], str(path))

    def no_split(self, split: Split) -> NoSplit:
        """The error of a task that has no problems in a split."""
        return NoSplit(
            f"{self.name} has no {split} problems of its own: "
            f"give a file with task.{split}_file=FILE (for another task than `task`: "
            f"+task_overrides.{self.name}.{split}_file=FILE)"
        )


def share_out(
    rows: list[Problem], split: Split, *, validation: int, train: int | None
) -> list[Problem]:
    """The last `validation` problems of a training set, held out, or the first `train` of the rest.

    UserError where none would be left to train on.
    """
    held_out = len(rows) - validation
    if held_out <= 0:
        raise UserError(
            f"task.validation={validation}: the training file has {len(rows)} problems, and none "
            "would be left to train on"
        )
    return rows[held_out:] if split == "validation" else rows[:held_out][:train]
