"""What IFEval and Multi-IF share: where their problems come from, and verdicts by instructions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, PositiveInt

from marco.errors import UserError
from marco.tasks.files import distinct, load_rows
from marco.tasks.instructions import grading
from marco.tasks.instructions.rules import Rules
from marco.tasks.problem import Problem, Split
from marco.tasks.task import Task, share_out
from marco.tasks.untagged import spoken_part
from marco.tasks.verdict import Verdict


class InstructionConfig(BaseModel, frozen=True, extra="forbid"):
    """Where the problems come from, and how many of them are taken (null: all)."""

    name: str
    hub: str
    train_file: str | None
    test_file: str | None
    train: PositiveInt | None
    validation: PositiveInt
    test: PositiveInt | None
    response_tokens: PositiveInt


class InstructionTask(Task):
    """A task whose gold answer is a list of instructions that a response must follow."""

    rules: ClassVar[Rules]
    asks_for_thought = False

    def __init__(self, config: InstructionConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split; UserError for a malformed row, or a split without a file."""
        if split == "test":
            return self._test()[: self.config.test]
        if self.config.train_file is None:
            raise self.no_split("train")
        rows = self.read(Path(self.config.train_file))
        return share_out(rows, split, validation=self.config.validation, train=self.config.train)

    def verify(self, response: str, problem: Problem) -> Verdict:
        return grading.verify(response, problem.answer, rules=self.rules)

    def answer_of(self, response: str, problem: Problem) -> str | None:
        text = spoken_part(response)
        return grading.shortened(text) if text else None

    def gold_of(self, ids: Any, kwargs: Any, where: str) -> str:
        """The gold answer for a row's instructions; UserError says `where` they are malformed."""
        return grading.gold_of(ids, kwargs, rules=self.rules, where=where)

    def plain_gold(self, row: Mapping[str, Any], where: str) -> str:
        """The gold answer of a row of `id`, `problem`, `answer`, whose answer is one already."""
        given = grading.read_json(row.get("answer"), where)
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise UserError(f"{where}: no `instruction_id_list`, and no `answer` that holds one")
        return self.gold_of(
            [one.get("id") for one in given], [one.get("kwargs") for one in given], where
        )

    def _test(self) -> list[Problem]:
        file = self.config.test_file
        # On the hub the benchmark's one split is called train.
        rows = load_rows(
            file, hub=self.config.hub, subset=None, split="train", key="task.test_file"
        )
        source = file or self.config.hub
        return distinct([self.parse(row, n, source) for n, row in rows], source)
