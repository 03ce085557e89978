"""English sentences as NLTK's Punkt finds them (Kiss and Strunk 2006), with its English model.

The model and the decision on one mark are the package's. Where a mark is asked about, and what is
pulled over to the sentence before, follow NLTK: the package's own splitter joins marks such as
`!!!` at the end of a text, which the official checkers count as two sentences.
"""

import re
import string
from collections.abc import Iterator
from functools import lru_cache

from punkt import LanguageVars, PunktWordTokenizer, annotate_tokens, load_model

# A text without white space is one word, and Punkt looks at a mark with the words around it.
WORD_CHARS = 1_000
CHARS = 50_000

RULES = LanguageVars(non_word_chars=")\";}]*:@'({[")
MARK = re.compile(rf"[.?!](?=([?!)\";}}\]*:@'({{\[]|\s+(\S{{1,{WORD_CHARS}}})))")
CLOSING = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
WORDS = PunktWordTokenizer(RULES)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of a text start and end, one after the other.

    Of a longer text those in its first 50,000 characters.
    """
    text = text[:CHARS]
    spans = _spans(text)
    start, end = next(spans)
    for following, stop in spans:
        closing = CLOSING.match(text, following, stop)
        if closing:
            yield start, following + len(closing.group().rstrip())
        elif start < end:
            yield start, end
        start, end = closing.end() if closing else following, stop
    if start < end:
        yield start, end


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """From mark to mark; the last span may be empty."""
    start = 0
    for mark, word in _marks(text):
        if _ends_sentence(text[max(word, mark.start() - WORD_CHARS) : mark.end()] + mark[1]):
            yield start, mark.end()
            start = mark.start(2) if mark[2] else mark.end()
    yield start, len(text.rstrip())


def _marks(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """The marks that may end a sentence, the last of those in one word, with the word's start."""
    last: re.Match[str] | None = None
    start = stop = 0  # of the word before the last mark
    for mark in MARK.finditer(text):
        space = -1
        if mark.start() > stop + 1:
            space = max(text.rfind(white, stop, mark.start()) for white in string.whitespace)
        begin = space + 1 if space > stop else start
        if last and stop <= begin:
            yield last, start
        last, start, stop = mark, begin, mark.start()
    if last:
        yield last, start


@lru_cache(maxsize=4096)
def _ends_sentence(context: str) -> bool:
    """Whether a sentence ends within a mark's context, before its last word."""
    tokens = annotate_tokens(WORDS.tokenize_annotated(context), load_model("english"), RULES)
    has_ended = False
    for token in tokens:
        if has_ended:
            return True
        has_ended = bool(token.sentbreak)
    return False
