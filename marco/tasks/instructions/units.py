"""Words and sentences, counted as the official checkers count them.

IFEval counts English: runs of `\\w` and Punkt's sentences. Multi-IF first looks for the language of
the text and counts Chinese, Japanese and (sentences) Hindi in ways of their own.
"""

import re
from collections.abc import Iterator
from itertools import islice

import emoji

from marco.tasks.instructions.languages import language
from marco.tasks.instructions.sentences import sentences as english_sentences

OTHER_CHARS = 20_000  # the search for emojis takes microseconds a character
CAPITAL_CHARS = 50_000  # and so does the cutting of words
EASTERN = ("zh", "zh-cn", "zh-tw", "ja")

WORD = re.compile(r"\w+")
# Deleted before Chinese and Japanese words are counted, so that what stands around them joins.
MARKS = str.maketrans(
    dict.fromkeys("\\.!?/_,{}<>:;$%^&*(+\"')[]`~@#-．—！，。？、￥…（）：；《》“”»〔〕「」")
)
# Han, Kana and Hangul: each character is a word.
SYLLABLE = re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf\u3040-\u30ff\uac00-\ud7af]")
EASTERN_SENTENCE = re.compile(r"[^!?。.！？．\n]+")
HINDI_END = re.compile(r"[।!?]")

# Where a word tokenizer cuts within a word: at marks, and after an apostrophe that opens a quote.
CUT = re.compile(
    r"[][(){}<>;@#$%&?!*\"`«»“”‘’„\u2012-\u2015]|--|''|\.{2,}|[:,](?!\d)"
    r"|(?i:(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w))"
)
# At its end, one after the other.
CLITICS = (
    re.compile(r"(?<=[^'])'[sSmMdD]?\Z"),
    re.compile(r"(?<=[^'])(?:'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)\Z"),
)
IN_TWO = re.compile(
    r"\b(can(?=not\b)|d(?='ye\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|more(?='n\b)"
    r"|wan(?=na\Z))(not|'ye|me|na|ta|'n)",
    re.IGNORECASE,
)


def words(text: str) -> int:
    """Runs of letters, digits and underscores."""
    return len(WORD.findall(text))


def words_by_language(text: str, limit: int) -> int:
    """Multi-IF's words: in Chinese and Japanese characters, emojis, and words of other scripts."""
    return eastern_words(text, limit) if language(text) in EASTERN else words(text)


def sentences(text: str, limit: int) -> int:
    """English sentences by Punkt, counted no further than the limit."""
    return sum(1 for _ in islice(english_sentences(text), limit))


def sentences_by_language(text: str, limit: int) -> int:
    """Multi-IF's sentences: of Hindi, of Chinese and Japanese, and by Punkt of all others."""
    code = language(text)
    if code == "hi":
        return hindi_sentences(text)
    return eastern_sentences(text) if code in EASTERN else sentences(text, limit)


def eastern_words(text: str, limit: int) -> int:
    """Han, Kana and Hangul characters, emojis, and what is left between white space.

    Counted no further than the limit; emojis and other scripts in their first 20,000 characters.
    """
    other, count = SYLLABLE.subn(" ", text.translate(MARKS))
    if count < limit:
        other = " ".join(other.split())[:OTHER_CHARS]
        count += emoji.emoji_count(other) + len(emoji.replace_emoji(other, "").split())
    return min(count, limit)


def eastern_sentences(text: str) -> int:
    """Runs between the marks that end sentences, within lines; the dot of a number ends one."""
    return sum(len(EASTERN_SENTENCE.findall(line.strip())) for line in text.splitlines())


def hindi_sentences(text: str) -> int:
    """What ends in a danda, `!` or `?`, and what is left after the last of them."""
    last = HINDI_END.split(text)[-1]
    return len(HINDI_END.findall(text)) + bool(last.strip())


def capital_words(text: str, limit: int) -> int:
    """Tokens in capitals alone, counted no further than the limit.

    Of a longer text those in its first 50,000 characters.
    """
    return sum(1 for _ in islice(capital_tokens(text[:CAPITAL_CHARS]), limit))


def capital_tokens(text: str) -> Iterator[str]:
    """The tokens in capitals alone, as the Penn Treebank's rules cut words (DON'T is two)."""
    for word in text.split():
        if any(map(str.isupper, word)):
            for part in CUT.split(word):
                yield from (token for token in _tokens(part) if token.isupper())


def _tokens(part: str) -> list[str]:
    """A part of a word without its clitics (IT 'S), cut between words written as one (CAN NOT)."""
    part = part.removesuffix(".")
    cut = []
    for clitic in CLITICS:
        if found := clitic.search(part[-4:]):
            cut.append(found.group())
            part = part[: -len(cut[-1])]
    return IN_TWO.sub(r" \1 \2 ", part).split() + cut[::-1]
