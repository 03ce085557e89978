"""math: competition problems whose answer is an expression (MATH, arXiv 2103.03874; MATH-500).

Sample (ours): "The parabola $y = x^2 - 6x + 11$ has its vertex at $(h, k)$. Find $(h, k)$."
-> `(3, 2)`

- Prompt: the bare problem as one user turn. Shots: none for the student.
- Answer: an expression, by the rules of `marco.tasks.answers`; equality by those of
  `marco.tasks.equality`, then math-verify in killable workers (`marco.tasks.grading`).
- Metric: accuracy, and no-answer ratio. A comparison that ends in a time-out is wrong, and flagged.
- Source: the hub's `HuggingFaceH4/MATH-500` (test) and `DigitalLearningGmbH/MATH-lighteval` (train,
  whose answers stand in the last box of their solutions), or local files with `problem` and
  `answer` (or `solution`).
- The published training set has no validation split: its last `validation` problems are it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from marco.errors import UserError
from marco.tasks.answers import last_box
from marco.tasks.examples import Example
from marco.tasks.files import distinct, id_of, load_rows, text_of
from marco.tasks.grading import GradingConfig, canonical_expression, grade
from marco.tasks.problem import Problem, Split
from marco.tasks.task import Task, share_out
from marco.tasks.verdict import Verdict


class MathConfig(BaseModel):
    """Where the problems come from, how many are taken (null: all), and what grading may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["math"]
    train_hub: str
    test_hub: str
    train_file: str | None
    test_file: str | None
    train: PositiveInt | None
    validation: PositiveInt
    test: PositiveInt | None
    shots: NonNegativeInt
    response_tokens: PositiveInt
    grading: GradingConfig


class Math(Task):
    """Competition mathematics."""

    def __init__(self, config: MathConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split; UserError for a missing file, a malformed line, no gold."""
        config = self.config
        if split == "test":
            return self._load("test", config.test_file, config.test_hub)[: config.test]
        rows = self._load("train", config.train_file, config.train_hub)
        return share_out(rows, split, validation=config.validation, train=config.train)

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        answer = row.get("answer")
        if answer is None:
            answer = last_box(str(row.get("solution") or ""))
        gold = "" if answer is None else str(answer).strip()
        if not gold:
            raise UserError(f"{source}, line {number}: no `answer` (or a box in `solution`)")
        return Problem(
            id=id_of(row, "unique_id", "id") or f"math-{number - 1}",
            problem=text_of(row, ("problem", "question"), number, source),
            answer=gold,
        )

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Worked examples, the same for every problem."""
        return EXAMPLES[: self.config.shots]

    def verify(self, response: str, problem: Problem) -> Verdict:
        return self.verify_all([(response, problem)])[0]

    def verify_all(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        return grade([(response, p.answer) for response, p in items], self.config.grading)

    def answer_of(self, response: str, problem: Problem) -> str | None:
        return canonical_expression(response, self.config.grading)

    def _load(self, split: str, file: str | None, hub: str) -> list[Problem]:
        rows = load_rows(file, hub=hub, subset=None, split=split, key=f"task.{split}_file")
        source = file or hub
        named = [(row | {"id": id_of(row, "id") or f"math-{split}-{n - 1}"}, n) for n, row in rows]
        if split == "train":  # published copies hold some problems whose answer is empty
            kept = [(row, n) for row, n in named if row.get("answer") != ""]
            if left := len(named) - len(kept):
                print(f"  {source}: {left} problems without an answer are left out", flush=True)
            named = kept
        return distinct([self.parse(row, n, source) for row, n in named], source)


# Written for this project, in the style of the task; none of them is a problem of the benchmark.
EXAMPLES: tuple[Example, ...] = (
    Example(
        problem="A line through $(2, 1)$ has slope $\\frac{3}{4}$. Where does it cross the "
        "$y$-axis? Give the $y$-coordinate as a common fraction.",
        sub_task="I need the equation of the line, then its value at $x = 0$.",
        hypothesis="The point lies 2 to the right of the axis, so the line falls by "
        "$2 \\cdot \\frac{3}{4}$ on the way back to it.",
        steps=(
            "The line is $y = 1 + \\frac{3}{4}(x - 2)$.",
            "At $x = 0$ this is $y = 1 - \\frac{3}{4} \\cdot 2 = -\\frac{1}{2}$.",
        ),
        double_check="From $(0, -\\frac{1}{2})$ to $(2, 1)$ it rises by $\\frac{3}{2}$ over 2, "
        "which is a slope of $\\frac{3}{4}$. It holds.",
        answer="$-\\frac{1}{2}$",
    ),
    Example(
        problem="Find all real $x$ with $x^2 - 4x = 1$.",
        sub_task="I complete the square, then take both roots.",
        hypothesis="The two solutions lie at equal distances from $x = 2$.",
        mistaken=("Completing the square, $(x - 2)^2 = 1$, so $x = 1$ or $x = 3$.",),
        reflection="The 4 that completes the square must be added on the right too.",
        reclarify="The equation is $x^2 - 4x = 1$, and both sides get the same 4.",
        steps=(
            "$x^2 - 4x + 4 = 1 + 4$, so $(x - 2)^2 = 5$.",
            "Then $x - 2 = \\pm\\sqrt{5}$, so $x = 2 \\pm \\sqrt{5}$.",
        ),
        double_check="The sum of the roots is 4 and their product $4 - 5 = -1$, as it must be.",
        answer="$2 \\pm \\sqrt{5}$",
    ),
)
