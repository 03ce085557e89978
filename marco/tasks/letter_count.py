"""letter_count: how often letters occur in a word; made on the spot, or read from a file.

Sample: "How many times do the letters n and a occur in total in the word banana?" -> 5

- Prompt: the bare problem as one user turn. Shots: none for the student.
- Answer: an integer, by the rules of `marco.tasks.answers`. Metric: accuracy, and no-answer ratio.
- Splits are disjoint by construction: a word belongs to one of them, whatever is asked about it.
- Source: ours; or a file with `problem` and `solution` (or `answer`), the form of the letter
  counting tasks in Marco-o1's repository.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
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
WORD_LIST = """
    accommodate address aeroplane afternoon allowance almond anniversary apartment assessment
    assistant balloon banana barrel basketball beginner bookkeeper bottle breeze broccoli bubble
    butterfly cabbage calendar cappuccino caravan carrot cassette ceiling challenge cheerful
    cinnamon classroom coconut coffee colleague committee connection corridor cotton cucumber
    curriculum daffodil December difference dinosaur discussion drizzle eggshell elephant
    embarrass engineer envelope evergreen excellent expression fluffy footballer freedom funnel
    giggle giraffe goddess grammar grasshopper greenhouse guarantee hammer happiness harmless
    hippopotamus hobby illness immediate independence intelligence kangaroo keenness kettle
    knitting lavender lesson letterbox library lollipop macaroni maintenance mammal marmalade
    mattress meadow membrane messenger millennium minimum mirror Mississippi monsoon mushroom
    narrative necessary needle November occasion occurrence opposite paragraph parallel
    parrot passenger penniless pepper pineapple possession potato preference pressure professor
    programme puppet puzzle raccoon referee refrigerator remember reservoir roommate rubber
    satellite scissors seventeen skiing slippery spaghetti squirrel strawberry success suddenness
    sunflower swimming tattoo teaspoon temperature terrace tobacco tomorrow toothbrush trigger
    tulip umbrella unnecessary vaccine vacuum villager volleyball waterfall weekend wheelbarrow
    whistle willow wooden woollen yellow zucchini
"""
WORDS = WORD_LIST.split()


class LetterCountConfig(BaseModel):
    """How many problems each split has and the seed they are drawn with, or files in their place.

    Of a file the first `train` (`validation`, `test`) problems are taken, or all if it has fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["letter_count"]
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    train_file: str | None
    validation_file: str | None
    test_file: str | None
    problem_seed: NonNegativeInt
    shots: NonNegativeInt
    response_tokens: PositiveInt


class LetterCount(Task):
    """One letter, or two in total, counted in a word."""

    def __init__(self, config: LetterCountConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, in a fixed order; on the spot, half ask for two letters.

        Raises UserError when more are asked for than there are, and for a malformed file.
        """
        wanted: int = getattr(self.config, split)
        file: str | None = getattr(self.config, f"{split}_file")
        if file is not None:
            return self.read(Path(file))[:wanted]
        rng = random.Random(f"{self.config.problem_seed}/{split}")
        words = [word for word in WORDS if _split(word) == split]
        singles = [(word, letters) for word in words for letters in _letters(word, 1)]
        pairs = [(word, letters) for word in words for letters in _letters(word, 2)]
        if wanted > 2 * len(singles):  # there are more pairs than single letters
            raise UserError(
                f"task.{split}={wanted}: letter_count has {2 * len(singles)} problems in this split"
            )
        chosen = rng.sample(singles, wanted // 2) + rng.sample(pairs, wanted - wanted // 2)
        rng.shuffle(chosen)
        return [
            Problem(
                id=f"{self.name}-{split}-{i}",
                problem=_ask(word, letters),
                answer=str(sum(map(word.lower().count, letters))),
            )
            for i, (word, letters) in enumerate(chosen)
        ]

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        answer = next((row[key] for key in ("solution", "answer") if row.get(key) is not None), "")
        gold = canonical(str(answer))
        if gold is None:
            raise UserError(f"{source}, line {number}: no `solution` (or `answer`): a number")
        return Problem(
            id=id_of(row, "id") or f"letter_count-{number - 1}",
            problem=text_of(row, ("problem",), number, source),
            answer=gold,
        )

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Worked examples, the same for every problem."""
        return EXAMPLES[: self.config.shots]

    def verify(self, response: str, problem: Problem) -> Verdict:
        return verify_number(response, problem.answer)


def _letters(word: str, n: int) -> Iterator[tuple[str, ...]]:
    return combinations(sorted(set(word.lower())), n)


def _split(word: str) -> Split:
    digest = hashlib.sha256(word.encode()).digest()
    place = int.from_bytes(digest[:8], "big") % 10
    return next(split for split, share in SHARES.items() if place in share)


def _ask(word: str, letters: tuple[str, ...]) -> str:
    if len(letters) == 1:
        return f"How many times does the letter {letters[0]} occur in the word {word}?"
    first, second = letters
    return f"How many times do the letters {first} and {second} occur in total in the word {word}?"


# Their words are those of no problem.
EXAMPLES: tuple[Example, ...] = (
    Example(
        problem=_ask("blossom", ("s",)),
        sub_task="I spell the word, then count the letter s.",
        hypothesis="The word is b-l-o-s-s-o-m, so the letter stands in it twice in a row.",
        steps=("The word is b, l, o, s, s, o, m.", "The letter s is at places 4 and 5: 2 times."),
        double_check="The other letters are b, l, o, o and m. It holds.",
        answer="2",
    ),
    Example(
        problem=_ask("television", ("e", "i")),
        sub_task="I spell the word, then count the letters e and i, and add them.",
        hypothesis="Both letters occur more than once.",
        mistaken=("The letter e occurs once and i twice, 1 + 2 = 3.",),
        reflection="I have passed over an e: the word begins with t, e, l, e.",
        reclarify="The word is t, e, l, e, v, i, s, i, o, n, and both letters count.",
        steps=(
            "The word is t, e, l, e, v, i, s, i, o, n.",
            "The letter e is at places 2 and 4, the letter i at 6 and 8: 2 + 2 = 4.",
        ),
        double_check="The other letters are t, l, v, s, o and n, 6 of 10. It holds.",
        answer="4",
    ),
)
