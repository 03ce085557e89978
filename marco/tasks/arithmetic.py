"""arithmetic: short word problems made on the spot; nothing to download.

Sample: "Mia buys 7 boxes with 6 pens each and finds 4 more pens. How many pens does she have?" -> 46

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
        "{name} buys {a} boxes with {b} {things} each and finds {c} more {things}. "
        "How many {things} does {name} have?",
        "There are {a} bags with {b} {things} in each bag, and {c} {things} on the table. "
        "How many {things} are there in all?",
        "{name} packs {b} {things} a day for {a} days, and then {c} more {things}. "
        "How many {things} did {name} pack?",
    ),
    "a*b-c": (
        "{name} has {a} boxes with {b} {things} each and gives away {c} {things}. "
        "How many {things} are left?",
        "A shop gets {a} bags of {b} {things} and sells {c} {things}. "
        "How many {things} does the shop still have?",
    ),
    "a+b-c": (
        "{name} has {a} {things}, gets {b} more, and loses {c} of them. "
        "How many {things} does {name} have now?",
    ),
}
NAMES = ("Mia", "Tom", "Ana", "Ben", "Lea", "Max", "Ida", "Sam", "Eva", "Leo", "Zoe", "Jan")
THINGS = ("pens", "apples", "marbles", "books", "cards", "shells", "coins", "cookies", "stamps")


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
    """Word problems a·b+c, a·b−c and a+b−c on small numbers."""

    def __init__(self, config: ArithmeticConfig) -> None:
        self.config = config
        self.name = config.name
        self.examples: Sequence[Example] = EXAMPLES
        self.shots = config.shots

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

    def verify(self, response: str, problem: Problem) -> Verdict:
        return verify_number(response, problem.answer)


def _numbers() -> Iterator[tuple[str, int, int, int]]:
    for a in range(3, 10):
        for b in range(3, 13):
            yield from (("a*b+c", a, b, c) for c in range(2, 20))
            yield from (("a*b-c", a, b, c) for c in range(2, min(20, a * b - 1)))
    for a in range(11, 60):
        for b in range(11, 40, 3):
            yield from (("a+b-c", a, b, c) for c in range(3, 20, 4))


def _split(form: str, a: int, b: int, c: int) -> Split:
    digest = hashlib.sha256(f"{form}/{min(a, b)}/{max(a, b)}/{c}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 10
    return next(split for split, share in SHARES.items() if place in share)


def _tell(id: str, form: str, a: int, b: int, c: int, rng: random.Random) -> Problem:
    values = {"a": a, "b": b, "c": c}
    story = rng.choice(FORMS[form]).format(name=rng.choice(NAMES), things=rng.choice(THINGS), **values)
    answer = {"a*b+c": a * b + c, "a*b-c": a * b - c, "a+b-c": a + b - c}[form]
    return Problem(id=id, problem=story, answer=str(answer))


EXAMPLES: tuple[Example, ...] = (
    Example(
        problem="Kim buys 4 boxes with 9 pencils each and finds 5 more pencils. "
        "How many pencils does Kim have?",
        thoughts={
            "sub_task": "I find the pencils in the boxes, then add the other pencils.",
            "hypothesis": "the pencils in the boxes are 4 x 9.",
            "thinking": "There are 4 boxes with 9 pencils each. 4 x 9 = 36. "
            "With 5 more pencils, 36 + 5 = 41.",
            "double_check": "The boxes hold 4 x 9 = 36, and 36 + 5 = 41. It holds.",
            "reclarify": "Kim has 4 boxes with 9 pencils each, and 5 more pencils.",
            "answer": "41",
        },
    ),
    Example(
        problem="A farm has 8 baskets of 7 pears and sells 13 pears. How many pears are left?",
        thoughts={
            "sub_task": "I find the pears in the baskets, then take away the sold pears.",
            "hypothesis": "the pears left are 8 x 7 less 13.",
            "thinking": "There are 8 baskets with 7 pears each. 8 x 7 = 54. "
            "Then 13 pears are sold. 54 - 13 = 41.",
            "reflection": "8 x 7 is 56, not 54.",
            "thinking_again": "8 x 7 = 56. Then 13 pears are sold. 56 - 13 = 43.",
            "double_check": "8 x 7 = 56, and 56 - 13 = 43. It holds.",
            "reclarify": "There are 8 baskets with 7 pears each, and 13 of all these are sold.",
            "answer": "43",
        },
    ),
    Example(
        problem="Nora has 27 stickers, gets 15 more, and loses 8 of them. "
        "How many stickers does Nora have now?",
        thoughts={
            "sub_task": "I add the stickers she gets, then take away the lost ones.",
            "hypothesis": "she has 27 + 15 less 8.",
            "thinking": "Nora has 27 stickers and gets 15. 27 + 15 = 42. She loses 8. 42 - 8 = 34.",
            "double_check": "27 + 15 = 42, and 42 - 8 = 34. It holds.",
            "reclarify": "Nora starts with 27 stickers, gets 15, and loses 8.",
            "answer": "34",
        },
    ),
    Example(
        problem="Paul reads 6 pages a day for 11 days, and then 9 more pages. "
        "How many pages did Paul read?",
        thoughts={
            "sub_task": "I find the pages of the 11 days, then add the other pages.",
            "hypothesis": "the pages of the days are 6 x 11.",
            "thinking": "Paul reads 6 pages a day for 11 days. 6 x 11 = 66. "
            "With 9 more pages, 66 + 9 = 75.",
            "double_check": "6 x 11 = 66, and 66 + 9 = 75. It holds.",
            "reclarify": "Paul reads 6 pages on each of 11 days, and 9 more pages.",
            "answer": "75",
        },
    ),
)
