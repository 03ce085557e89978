"""Sentences of a response, and what is left of them when numbers and letters are masked.

Every quantifier runs over a class that its successor excludes, or is bounded: linear time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# A sentence ends at a line's end, at a full stop before white space, and at a tag.
END = re.compile(r"\n\s*|(?<=[.!?])[ \t\r]+|[。！？]+|</?[\w-]{1,30}>|<\|[\w-]{1,30}\|>")
# What may stand before a sentence's first word: white space, bullets, quotes, emphasis.
LEAD = " \t\r-*#>\"'“”‘’(（「『•·:"
NUMBERING = "0123456789.()[]"  # nothing but these is the number of a list
FEWEST = 3  # characters of a sentence: fewer are a bracket
DIGITS = re.compile(r"\d+(?:[.,]\d+)*+")
LETTER = re.compile(r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])")
SPACE = re.compile(r"[ \t\r]+")


@dataclass(frozen=True)
class Sentence:
    """`text` without what leads to it, and the character of the response that it starts at."""

    start: int
    text: str


def sentences_of(response: str) -> list[Sentence]:
    """The sentences of a response in their order: lines are cut at full stops and at tags."""
    found, start = [], 0
    for end in END.finditer(response):
        _keep(found, response, start, end.start())
        start = end.end()
    _keep(found, response, start, len(response))
    return found


def _keep(found: list[Sentence], response: str, start: int, stop: int) -> None:
    cut = response[start:stop]
    text = cut.lstrip(LEAD)
    start += len(cut) - len(text)
    text = text.rstrip()
    if len(text) >= FEWEST and text.strip(NUMBERING):
        found.append(Sentence(start, text))


def forms_of(sentences: Sequence[Sentence]) -> list[str]:
    """Sentences in lower case, numbers as `0`, letters that stand alone as `x`, single spaces."""
    lines = "\n".join(sentence.text for sentence in sentences).lower()
    lines = SPACE.sub(" ", LETTER.sub("x", DIGITS.sub("0", lines)))
    return lines.split("\n") if lines else []
