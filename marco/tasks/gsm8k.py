"""gsm8k: grade-school word problems with an integer answer (arXiv 2110.14168).

Sample: `{"question": "… How many … in April and May?", "answer": "… <<48+24=72>>72 …\\n#### 72"}`

- Prompt: the bare question as one user turn. Shots: none for the student.
- Answer: the number after `####` is gold; `marco.tasks.answers` has the rules for responses.
- Metric: accuracy, and no-answer ratio. Source: the hub's `openai/gsm8k`, or a local JSON Lines
  file with `question` and `answer` (or `id`, `problem`, `answer`).
- The published training set has no validation split: its last `validation` problems are it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from marco.errors import UserError
from marco.tasks.answers import verify_number
from marco.tasks.examples import Example
from marco.tasks.files import distinct, id_of, load_rows, text_of
from marco.tasks.numbers import canonical
from marco.tasks.problem import Problem, Split
from marco.tasks.task import Task, share_out
from marco.tasks.verdict import Verdict


class GSM8KConfig(BaseModel):
    """Where the problems come from, and how many of them are taken (null: all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["gsm8k"]
    hub: str
    train_file: str | None
    test_file: str | None
    train: PositiveInt | None
    validation: PositiveInt
    test: PositiveInt | None
    shots: NonNegativeInt
    response_tokens: PositiveInt


class GSM8K(Task):
    """Grade-school mathematics."""

    def __init__(self, config: GSM8KConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split; UserError for a missing file, a malformed line, no gold."""
        if split == "test":
            return self._load("test", self.config.test_file)[: self.config.test]
        rows = self._load("train", self.config.train_file)
        return share_out(rows, split, validation=self.config.validation, train=self.config.train)

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Worked examples, the same for every problem."""
        return EXAMPLES[: self.config.shots]

    def verify(self, response: str, problem: Problem) -> Verdict:
        return verify_number(response, problem.answer)

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        answer = row.get("answer")
        gold = None if answer is None else canonical(str(answer).rpartition("####")[2].strip())
        if gold is None:
            raise UserError(f"{source}, line {number}: no gold answer (a number after `####`)")
        return Problem(
            id=id_of(row, "id") or f"gsm8k-{number - 1}",
            problem=text_of(row, ("question", "problem"), number, source),
            answer=gold,
        )

    def _load(self, split: str, file: str | None) -> list[Problem]:
        key = f"task.{split}_file"
        rows = load_rows(file, hub=self.config.hub, subset="main", split=split, key=key)
        source = file or self.config.hub
        named = [(row | {"id": id_of(row, "id") or f"gsm8k-{split}-{n - 1}"}, n) for n, row in rows]
        return distinct([self.parse(row, n, source) for row, n in named], source)


# Written for this project, in the style of the task; none of them is a problem of the benchmark.
EXAMPLES: tuple[Example, ...] = (
    Example(
        problem="A bakery sells 12 loaves in the morning at $3 each and half as many in the "
        "afternoon at $2 each. How many dollars does it take in?",
        sub_task="I need the takings of the morning, those of the afternoon, and their sum.",
        hypothesis="The afternoon brings less: fewer loaves go, at a lower price.",
        steps=(
            "In the morning it takes in 12 * 3 = 36 dollars.",
            "In the afternoon it sells 12 / 2 = 6 loaves for 6 * 2 = 12 dollars. "
            "Together that is 36 + 12 = 48 dollars.",
        ),
        double_check="The morning's loaves are counted at the morning's price. It holds.",
        answer="48",
    ),
    Example(
        problem="Omar reads 20 pages a day. His book has 300 pages, of which he has read 80. "
        "How many days does he still need?",
        sub_task="I need the pages that are left, then the days for them.",
        hypothesis="He needs the remaining pages divided by the pages a day.",
        mistaken=("The book has 300 pages.", "300 pages take 300 / 20 = 15 days."),
        reflection="He has already read 80 pages, and I have counted them again.",
        reclarify="Of 300 pages 80 are read, and 20 more are read each day.",
        steps=("300 - 80 = 220 pages are left.", "220 pages take 220 / 20 = 11 days."),
        double_check="80 pages are read and 220 are left, 300 in all. It holds.",
        answer="11",
    ),
)
