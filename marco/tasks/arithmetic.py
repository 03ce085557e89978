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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from marco.errors import UserError
from marco.tasks.answers import verify_number
from marco.tasks.examples import Example
from marco.tasks.files import id_of, text_of
from marco.tasks.numbers import canonical
from marco.tasks.problem import Problem, Split
from marco.tasks.task import Task
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
    response_tokens: PositiveInt


class Arithmetic(Task):
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

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        gold = None if row.get("answer") is None else canonical(str(row["answer"]))
        if gold is None:
            raise UserError(f"{source}, line {number}: no `answer` that is a number")
        return Problem(
            id=id_of(row, "id") or f"arithmetic-{number - 1}",
            problem=text_of(row, ("problem",), number, source),
            answer=gold,
        )

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


def _example(
    form: str,
    story: int,
    name: str,
    things: str,
    box: tuple[str, str],
    numbers: tuple[int, int, int],
    *,
    slip: int = 0,
) -> Example:
    """A worked example; with a slip it first gets the product wrong by that, and mends it."""
    (one, boxes), (a, b, c) = box, numbers
    problem = FORMS[form][story].format(
        name=name, things=things, box=one, boxes=boxes, a=a, b=b, c=c
    )
    more = form == "a*b+c"
    rest = f"With {c} more" if more else f"Without {c}"

    def step(product: int) -> str:
        total = f"{product} + {c} = {product + c}" if more else f"{product} - {c} = {product - c}"
        return f"The {boxes} hold {a} * {b} = {product} {things}. {rest}, {total} {things}."

    end = f"all the {things}" if more else f"the {things} that are left"
    also = f"and {c} more {things}" if more else f"without {c} {things}"
    return Example(
        problem=problem,
        sub_task=f"First the {things} in the {boxes}, then {end}.",
        hypothesis=f"The {boxes} hold {a} * {b} {things}.",
        mistaken=(step(a * b - slip),) if slip else (),
        reflection=f"{a} * {b} = {a * b}, not {a * b - slip}." if slip else "",
        reclarify=f"There are {a} {boxes} with {b} {things} each, {also}." if slip else "",
        steps=(step(a * b),),
        double_check=f"{a} * {b} = {a * b}. It is right.",
        answer=str(a * b + c if more else a * b - c),
    )


# Their names and things are those of no problem.
EXAMPLES: dict[str, tuple[Example, ...]] = {
    form: (
        _example(form, 0, "Nora", "pears", BOXES[1], (8, 7, 13), slip=2),
        _example(form, 1, "Paul", "beads", BOXES[2], (3, 6, 8 if form == "a*b+c" else 4)),
        _example(form, 0, "Kim", "pencils", BOXES[0], (4, 9, 5)),
        _example(form, 1, "Lia", "cakes", BOXES[1], (6, 5, 12)),
    )
    for form in FORMS
}
