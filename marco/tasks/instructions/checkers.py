"""The checkers of IFEval's 25 kinds of instructions, and Multi-IF's own three.

A checker takes a text that is not blank and what its instruction asks for, by the names of the
benchmarks' kwargs, and says whether the text follows it. It decides as the official checkers do
(docs/tasks/instructions.md lists their oddities), in time linear in the text.
"""

import json
import re
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from marco.tasks.instructions import units
from marco.tasks.instructions.languages import language as language_of

Relation = Literal["less than", "at least"]
Count = Annotated[int, Field(ge=0)]
Phrase = Annotated[str, Field(pattern=r"\S")]
Phrases = Annotated[list[Phrase], Field(min_length=1)]

ENGLISH = "en"
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
QUOTES = ('""', "“”", "「」")
FENCES = ("```json", "```Json", "```JSON", "```")

# The white space before a bullet is kept to its line: the line breaks before it decide nothing.
STAR_BULLET = re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE)
DASH_BULLET = re.compile(r"^[^\S\n]*-", re.MULTILINE)
HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
DIVIDER = re.compile(r"\s?\*\*\*\s?")
POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
REPEATS = frozenset("*+{")


def keywords_existence(text: str, *, keywords: Phrases) -> bool:
    """Every keyword is somewhere in the text, within words too; case does not count."""
    return all(pattern(keyword).search(text) for keyword in keywords)


def keyword_frequency(text: str, *, keyword: Phrase, frequency: Count, relation: Relation) -> bool:
    """The keyword occurs often enough, or rarely enough, within words too."""
    return holds(len(pattern(keyword.strip()).findall(text)), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: Phrases) -> bool:
    """None of the words is in the text as a word of its own."""
    return not any(pattern(word, whole=True).search(text) for word in forbidden_words)


def letter_frequency(
    text: str, *, letter: Phrase, let_frequency: Count, let_relation: Relation
) -> bool:
    """The letter, or another character, occurs often enough or rarely enough in either case."""
    return holds(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def response_language(text: str, *, language: Phrase) -> bool:
    """The text is in the language; a text of which nothing can be said counts as that."""
    return language_of(text) in (language, None)


def number_sentences(text: str, *, num_sentences: Count, relation: Relation) -> bool:
    """English sentences."""
    return holds(units.sentences(text, num_sentences), relation, num_sentences)


def number_sentences_by_language(text: str, *, num_sentences: Count, relation: Relation) -> bool:
    """Sentences of the language that the text is in."""
    return holds(units.sentences_by_language(text, num_sentences), relation, num_sentences)


def number_words(text: str, *, num_words: Count, relation: Relation) -> bool:
    """Runs of word characters."""
    return holds(units.words(text), relation, num_words)


def number_words_by_language(text: str, *, num_words: Count, relation: Relation) -> bool:
    """Words of the language that the text is in."""
    return holds(units.words_by_language(text, num_words), relation, num_words)


def number_paragraphs(text: str, *, num_paragraphs: Count) -> bool:
    """Paragraphs with `***` between them: just so many, none in the middle blank."""
    first, *middle = DIVIDER.split(text)
    if not middle:
        return num_paragraphs == 1
    last = middle.pop()
    if not all(paragraph.strip() for paragraph in middle):
        return False
    return len(middle) + bool(first.strip()) + bool(last.strip()) == num_paragraphs


def nth_paragraph_first_word(
    text: str, *, num_paragraphs: Count, nth_paragraph: Count, first_word: Phrase
) -> bool:
    """So many paragraphs between blank lines, and the n-th of them starts with the word."""
    paragraphs = text.split("\n\n")
    filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if not 1 <= nth_paragraph <= filled:
        return False
    words = paragraphs[nth_paragraph - 1].split(maxsplit=1)
    if not words:
        return False
    word = re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'), maxsplit=1)[0]
    return filled == num_paragraphs and word.lower() == first_word.lower()


def number_placeholders(text: str, *, num_placeholders: Count) -> bool:
    """Square brackets that close in their line, so many or more; what is in them may be nothing."""
    return sum(map(_placeholders, text.split("\n"))) >= num_placeholders


def postscript(text: str, *, postscript_marker: Phrase) -> bool:
    """The marker is anywhere in the text; for P.S. and P.P.S with spaces between, too."""
    marker = postscript_marker.strip()
    known = POSTSCRIPTS.get(marker)
    wanted = re.compile(known) if known else pattern(marker.lower(), any_case=False)
    return wanted.search(text.lower()) is not None


def number_bullet_lists(text: str, *, num_bullets: Count) -> bool:
    """Just so many lines that start with `*` (not `**`) or with `-`."""
    return len(STAR_BULLET.findall(text)) + len(DASH_BULLET.findall(text)) == num_bullets


def constrained_response(text: str) -> bool:
    """One of the three answers that the instruction offers is in the text."""
    return any(option in text for option in OPTIONS)


def number_highlighted_sections(text: str, *, num_highlights: Count) -> bool:
    """So many or more stretches between stars; `***so***` is two."""
    single = sum(bool(found.strip("*").strip()) for found in HIGHLIGHT.findall(text))
    double = sum(bool(found[2:-2].strip()) for found in DOUBLE_HIGHLIGHT.findall(text))
    return single + double >= num_highlights


def multiple_sections(text: str, *, section_spliter: Phrase, num_sections: Count) -> bool:
    """So many or more headings: the word, then a number."""
    heading = pattern(section_spliter.strip(), any_case=False).pattern + r"\s?\d+"
    return len(re.findall(heading, text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole text is JSON, perhaps within a fence of back ticks."""
    text = text.strip()
    for fence in FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A line holds something within double angular brackets."""
    return any(map(_has_title, text.split("\n")))


def two_responses(text: str) -> bool:
    """Two different responses with six stars between them."""
    first, *middle = text.split("******")
    last = middle.pop() if middle else ""
    if not all(part.strip() for part in middle):
        return False
    parts = [part.strip() for part in (first, *middle, last) if part.strip()]
    return len(parts) == 2 and parts[0] != parts[1]


def repeat_prompt(text: str, *, prompt_to_repeat: Phrase) -> bool:
    """The text starts with the prompt; case does not count."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: Phrase) -> bool:
    """The text, perhaps in double quotes, ends with the phrase; case does not count."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(
    text: str, *, capital_frequency: Count, capital_relation: Relation
) -> bool:
    """Words in capitals alone, often enough or rarely enough."""
    return holds(units.capital_words(text, capital_frequency), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """No small letter, at least one capital, and in English or of no language at all."""
    return text.isupper() and language_of(text) in (ENGLISH, None)


def english_lowercase(text: str) -> bool:
    """No capital, at least one small letter, and in English or of no language at all."""
    return text.islower() and language_of(text) in (ENGLISH, None)


def no_comma(text: str) -> bool:
    """No ASCII comma."""
    return "," not in text


def quotation(text: str) -> bool:
    """The whole text is in straight double quotes."""
    return _is_within(text.strip(), QUOTES[:1])


def quotation_of_any_script(text: str) -> bool:
    """The whole text is in double quotes, straight, curly or Japanese."""
    return _is_within(text.strip(), QUOTES)


def holds(count: int, relation: Relation, threshold: int) -> bool:
    """Whether a count is less than the threshold (strictly), or at least that."""
    return count < threshold if relation == "less than" else count >= threshold


@lru_cache(maxsize=1024)
def pattern(phrase: str, *, whole: bool = False, any_case: bool = True) -> re.Pattern[str]:
    """A benchmark's phrase as the official checkers search for it: as a regular expression.

    What repeats without bound or does not compile is searched for as it is written: the one may
    take more than linear time, with the other the official checkers crash.
    """
    flags = re.IGNORECASE if any_case else 0
    edge = r"\b" if whole else ""
    literal = re.compile(edge + re.escape(phrase) + edge, flags)
    if REPEATS & set(phrase):
        return literal
    try:
        return re.compile(edge + phrase + edge, flags)
    except re.error:
        return literal


def _placeholders(line: str) -> int:
    """How many `[` have a `]` after them, each from the end of the one before."""
    found = 0
    end = 0
    while (start := line.find("[", end)) >= 0 and (end := line.find("]", start)) >= 0:
        found += 1
    return found


def _has_title(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    if start < 0 or end < start + 3:
        return False
    return bool(line[start : end + 2].lstrip("<").rstrip(">").strip())


def _is_within(text: str, quotes: tuple[str, ...]) -> bool:
    return len(text) > 1 and text[0] + text[-1] in quotes
