"""arithmetic: short word problems made on the spot; nothing to download.

Sample: "Mia has 7 boxes with 6 pens in each box and 4 more pens. How many pens does Mia have in
total?" -> 46

- Prompt: the bare problem as one user turn. Shots: none for the student; the search shows worked
  examples that carry the node tags (`EXAMPLES`).
- Answer: an integer, by the rules of `marco.tasks.answers`. Metric: accuracy, and no-answer ratio.
- Splits are disjoint by construction: a problem's numbers decide its split, whatever words are
  around them, so a test problem never shows up in training in another story.
- Source: ours.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from marco.errors import UserError
from marco.tasks.answers import verify_number
from marco.tasks.examples import Example
from marco.tasks.problem import Problem, Split
from marco.tasks.verdict import Verdict

SHARES: dict[Split, range] = {"test": range(0, 3), "validation": range(3, 5), "train": range(5, 10)}

# Each form: its operation on (a, b, c) and the stories told about it.
FORMS: dict[str, tuple[str, ...]] = {
    "a*b+c": (
        "{name} has {a} {boxes} with {b} {things} in each {box} and {c} more {things}. "
        "How many {things} does {name} have in total?",
        "{name} buys {a} {boxes} with {b} {things} in each {box} and finds {c} more {things}. "
        "How many {things} does {name} have in total?",
    ),
    "a*b-c": (
        "{name} has {a} {boxes} with {b} {things} in each {box} and gives away {c} {things}. "
        "How many {things} does {name} have left?",
        "{name} buys {a} {boxes} with {b} {things} in each {box} and loses {c} {things}. "
        "How many {things} does {name} have left?",
    ),
}
NAMES = ("Mia", "Tom", "Ana", "Ben", "Lea", "Max", "Ida", "Sam", "Eva", "Leo", "Zoe", "Jan")
THINGS = ("pens", "apples", "marbles", "books", "cards", "shells", "coins", "cookies", "stamps")
BOXES = (("box", "boxes"), ("bag", "bags"), ("jar", "jars"))


class ArithmeticConfig(BaseModel):
    """How many problems each split has, and the seed that they are drawn with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["arithmetic"]
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    problem_seed: NonNegativeInt
    shots: NonNegativeInt


class Arithmetic:
    """Word problems a·b+c and a·b−c on small numbers."""

    def __init__(self, config: ArithmeticConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, distinct in their texts, in a fixed order.

        Raises UserError when more are asked for than there are.
        """
        wanted: int = getattr(self.config, split)
        rng = random.Random(f"{self.config.problem_seed}/{split}")
        candidates = [numbers for numbers in _numbers() if _split(*numbers) == split]
        if wanted > len(candidates):
            raise UserError(
                f"task.{split}={wanted}: arithmetic has {len(candidates)} problems in this split"
            )
        chosen = rng.sample(candidates, wanted)
        return [
            _tell(f"{self.name}-{split}-{i}", *numbers, rng) for i, numbers in enumerate(chosen)
        ]

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Worked examples of the problem's own form."""
        form = "a*b-c" if problem.problem.endswith("left?") else "a*b+c"
        return EXAMPLES[form][: self.config.shots]

    def verify(self, response: str, problem: Problem) -> Verdict:
        return verify_number(response, problem.answer)


def _numbers() -> Iterator[tuple[str, int, int, int]]:
    for a in range(2, 10):
        for b in range(2, 10):
            yield from (("a*b+c", a, b, c) for c in range(2, 13))
            yield from (("a*b-c", a, b, c) for c in range(2, min(13, a * b - 1)))


def _split(form: str, a: int, b: int, c: int) -> Split:
    digest = hashlib.sha256(f"{form}/{min(a, b)}/{max(a, b)}/{c}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 10
    return next(split for split, share in SHARES.items() if place in share)


def _tell(id: str, form: str, a: int, b: int, c: int, rng: random.Random) -> Problem:
    box, boxes = rng.choice(BOXES)
    story = rng.choice(FORMS[form]).format(
        name=rng.choice(NAMES), things=rng.choice(THINGS), box=box, boxes=boxes, a=a, b=b, c=c
    )
    answer = a * b + c if form == "a*b+c" else a * b - c
    return Problem(id=id, problem=story, answer=str(answer))


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "a*b+c": (
        Example(
            problem="Nora has 8 bags with 7 pears in each bag and 13 more pears. "
            "How many pears does Nora have in total?",
            sub_task="First the pears in the bags, then all the pears.",
            hypothesis="The bags hold 8 * 7 pears.",
            mistaken=("The bags hold 8 * 7 = 54 pears. With 13 more, 54 + 13 = 67 pears.",),
            reflection="8 * 7 = 56, not 54.",
            reclarify="There are 8 bags with 7 pears each, and 13 more pears.",
            steps=("The bags hold 8 * 7 = 56 pears. With 13 more, 56 + 13 = 69 pears.",),
            double_check="8 * 7 = 56. It is right.",
            answer="69",
        ),
        Example(
            problem="Paul buys 3 jars with 6 beads in each jar and finds 8 more beads. "
            "How many beads does Paul have in total?",
            sub_task="First the beads in the jars, then all the beads.",
            hypothesis="The jars hold 3 * 6 beads.",
            steps=("The jars hold 3 * 6 = 18 beads. With 8 more, 18 + 8 = 26 beads.",),
            double_check="3 * 6 = 18. It is right.",
            answer="26",
        ),
        Example(
            problem="Kim has 4 boxes with 9 pencils in each box and 5 more pencils. "
            "How many pencils does Kim have in total?",
            sub_task="First the pencils in the boxes, then all the pencils.",
            hypothesis="The boxes hold 4 * 9 pencils.",
            steps=("The boxes hold 4 * 9 = 36 pencils. With 5 more, 36 + 5 = 41 pencils.",),
            double_check="4 * 9 = 36. It is right.",
            answer="41",
        ),
        Example(
            problem="Lia buys 6 bags with 5 cakes in each bag and finds 12 more cakes. "
            "How many cakes does Lia have in total?",
            sub_task="First the cakes in the bags, then all the cakes.",
            hypothesis="The bags hold 6 * 5 cakes.",
            steps=("The bags hold 6 * 5 = 30 cakes. With 12 more, 30 + 12 = 42 cakes.",),
            double_check="6 * 5 = 30. It is right.",
            answer="42",
        ),
    ),
    "a*b-c": (
        Example(
            problem="Nora has 8 bags with 7 pears in each bag and gives away 13 pears. "
            "How many pears does Nora have left?",
            sub_task="First the pears in the bags, then the pears that are left.",
            hypothesis="The bags hold 8 * 7 pears.",
            mistaken=("The bags hold 8 * 7 = 54 pears. Without 13, 54 - 13 = 41 pears.",),
            reflection="8 * 7 = 56, not 54.",
            reclarify="There are 8 bags with 7 pears each, without 13 pears.",
            steps=("The bags hold 8 * 7 = 56 pears. Without 13, 56 - 13 = 43 pears.",),
            double_check="8 * 7 = 56. It is right.",
            answer="43",
        ),
        Example(
            problem="Paul buys 3 jars with 6 beads in each jar and loses 4 beads. "
            "How many beads does Paul have left?",
            sub_task="First the beads in the jars, then the beads that are left.",
            hypothesis="The jars hold 3 * 6 beads.",
            steps=("The jars hold 3 * 6 = 18 beads. Without 4, 18 - 4 = 14 beads.",),
            double_check="3 * 6 = 18. It is right.",
            answer="14",
        ),
        Example(
            problem="Kim has 4 boxes with 9 pencils in each box and gives away 5 pencils. "
            "How many pencils does Kim have left?",
            sub_task="First the pencils in the boxes, then the pencils that are left.",
            hypothesis="The boxes hold 4 * 9 pencils.",
            steps=("The boxes hold 4 * 9 = 36 pencils. Without 5, 36 - 5 = 31 pencils.",),
            double_check="4 * 9 = 36. It is right.",
            answer="31",
        ),
        Example(
            problem="Lia buys 6 bags with 5 cakes in each bag and loses 12 cakes. "
            "How many cakes does Lia have left?",
            sub_task="First the cakes in the bags, then the cakes that are left.",
            hypothesis="The bags hold 6 * 5 cakes.",
            steps=("The bags hold 6 * 5 = 30 cakes. Without 12, 30 - 12 = 18 cakes.",),
            double_check="6 * 5 = 30. It is right.",
            answer="18",
        ),
    ),
}
