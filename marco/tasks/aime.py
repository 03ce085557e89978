"""aime: the American Invitational Mathematics Examination; 30 problems a year (two papers of 15).

Sample (ours): "How many positive integers below 100 are divisible by 6 but not by 4?" -> `8`

- Prompt: the bare problem as one user turn. Shots: none for the student.
- Answer: an integer from 0 to 999, leading zeros allowed ("073" is 73), found and compared as in
  the task math, so that a fraction or an equation that comes to it counts too.
- Metric: accuracy, and no-answer ratio; 60 problems give wide intervals.
- Source: `HuggingFaceH4/aime_2024` and `math-ai/aime25` on the hub, or local files with `problem`
  and `answer`, one for each year. There is a test split alone; train_file and validation_file
  stand in for the others.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from marco.errors import UserError
from marco.tasks.examples import Example
from marco.tasks.files import distinct, id_of, load_rows, text_of
from marco.tasks.grading import GradingConfig, canonical_expression, grade
from marco.tasks.math import EXAMPLES
from marco.tasks.problem import Problem, Split
from marco.tasks.task import Task
from marco.tasks.verdict import Verdict

GOLD = re.compile(r"0*(\d{1,3})(?:\^\{?\\circ\}?)?", re.ASCII)


class Year(BaseModel):
    """Where the problems of a year are: a local file, or a data set and its split on the hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str | None
    hub: str
    hub_split: str


class AIMEConfig(BaseModel):
    """Which years are asked, where they come from, and what grading may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["aime"]
    years: list[int] = Field(min_length=1)
    sources: dict[str, Year]
    train_file: str | None
    validation_file: str | None
    shots: NonNegativeInt
    response_tokens: PositiveInt
    grading: GradingConfig


class AIME(Task):
    """Problems of several years, in the order of the years."""

    def __init__(self, config: AIMEConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split; UserError for an unknown year, a malformed line, no gold."""
        if split != "test":
            file = getattr(self.config, f"{split}_file")
            if file is None:
                raise self.no_split(split)
            return self._load(file, hub="", hub_split="", key="", prefix=f"aime-{split}")
        problems = []
        for year in self.config.years:
            source = self.config.sources.get(str(year))
            if source is None:
                known = ", ".join(self.config.sources)
                raise UserError(f"task.years: no source for {year}; task.sources has {known}")
            problems += self._load(
                source.file,
                hub=source.hub,
                hub_split=source.hub_split,
                key=f"task.sources.{year}.file",
                prefix=f"aime-{year}",
            )
        return distinct(problems, "task.sources")

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        match = GOLD.fullmatch(str(row.get("answer", "")).strip())
        if match is None:
            raise UserError(
                f"{source}, line {number}: no `answer` that is an integer from 0 to 999"
            )
        return Problem(
            id=id_of(row, "id") or f"aime-{number - 1}",
            problem=text_of(row, ("problem", "question"), number, source),
            answer=str(int(match[1])),
        )

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Those of the task math."""
        return EXAMPLES[: self.config.shots]

    def verify(self, response: str, problem: Problem) -> Verdict:
        return self.verify_all([(response, problem)])[0]

    def verify_all(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        return grade([(response, p.answer) for response, p in items], self.config.grading)

    def answer_of(self, response: str, problem: Problem) -> str | None:
        return canonical_expression(response, self.config.grading)

    def _load(
        self, file: str | None, *, hub: str, hub_split: str, key: str, prefix: str
    ) -> list[Problem]:
        """The problems of a source; its own ids count within it only, so they get the prefix."""
        rows = load_rows(file, hub=hub, subset=None, split=hub_split, key=key)
        source = file or hub
        return [
            self.parse({**row, "id": f"{prefix}-{id_of(row, 'id') or n - 1}"}, n, source)
            for n, row in rows
        ]
