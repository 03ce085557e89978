"""What counts as an answer: one rule set for tasks whose answer is a number.

The first rule that applies decides; within a rule the last match wins.

1. `tag`: the last number in the last closed `<answer>…</answer>`.
2. `box`: the last number in the last `\\boxed{…}` (no nested braces).
3. `hashes`: the number after the last `####`, the form of GSM8K's gold answers.
4. `phrase`: the first number after the last "answer is" or "answer:" in the same sentence; where
   the sentence goes on as an equation ("7 * 6 + 4 = 46"), the first after its last `=`.

Anything else is no answer: the last number of a text is not taken for one. Text inside a thinking
tag that is never closed holds no answer.
"""

import re
from decimal import Decimal, InvalidOperation

from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

# Every quantifier is bounded or runs over a class that its successor excludes: linear time.
NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?\$?"
    r"(?:(?:\d{1,3}(?:,\d{3}){1,8}(?!\d)|\d{1,40})(?:\.\d{1,40})?|\.\d{1,40})"
)
PHRASE = re.compile(r"answer(?: is|:)", re.IGNORECASE)
SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
TAIL = 200  # characters after a phrase or hashes in which its number must stand


def extract_number(response: str) -> tuple[str | None, str]:
    """The answer in canonical form (`1234`, `-0.5`) or None, and the rule that found it."""
    text = _outside_unfinished_thinking(response)
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start >= 0:
        return _last_number(text[start + len("<answer>") : end]), "tag"
    if (start := text.rfind("\\boxed{")) >= 0 and (end := text.find("}", start)) >= 0:
        return _last_number(text[start + len("\\boxed{") : end]), "box"
    if (start := text.rfind("####")) >= 0:
        return _first_number(text[start + 4 : start + 4 + TAIL].split("\n")[0]), "hashes"
    if phrases := list(PHRASE.finditer(text)):
        tail = text[phrases[-1].end() : phrases[-1].end() + TAIL]
        sentence = SENTENCE_END.split(tail.lstrip("\n :"), maxsplit=1)[0]
        return _first_number(sentence.rpartition("=")[2]) or _first_number(sentence), "phrase"
    return None, "no rule applies"


def verify_number(response: str, gold: str) -> Verdict:
    """Compare the extracted number with the gold answer, integers as integers."""
    answer, rule = extract_number(response)
    if answer is None:
        return Verdict(NO_ANSWER, None, rule)
    return Verdict(CORRECT if answer == canonical(gold) else WRONG, answer, rule)


def canonical(number: str) -> str | None:
    """`$1,234.50` as `1234.5`; None if it is no number."""
    try:
        value = Decimal(re.sub(r"[$,\s]", "", number).replace("\u2212", "-"))
    except InvalidOperation:
        return None
    text = format(value, "f") if value.is_finite() and value.adjusted() < 400 else None
    if text and "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _outside_unfinished_thinking(text: str) -> str:
    for tag in ("thinking", "think"):
        start = text.rfind(f"<{tag}>")
        if start >= 0 and text.find(f"</{tag}>", start) < 0:
            text = text[:start]
    return text


def _last_number(text: str) -> str | None:
    found = NUMBER.findall(text)
    return canonical(found[-1]) if found else None


def _first_number(text: str) -> str | None:
    found = NUMBER.search(text)
    return canonical(found.group()) if found else None
