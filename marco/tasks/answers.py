"""What counts as an answer: a number for some tasks, mathematics for others.

Thoughts hold no answer: what counts stands outside `<think>`, `<thinking>` and Sky-T1's thought
marks, and before one that is never closed. The first rule that applies decides; within a rule the
last match wins.

1. `tag`: the last closed `<answer>…</answer>`.
2. `box`: the last closed `\\boxed{…}` or `\\fbox{…}`, braces balanced, or `\\boxed 5`.
3. `hashes` (numbers only): what follows the last `####`, the form of GSM8K's gold answers.
4. `phrase`: what follows the last "answer is", "answer:" or "answer =", in its sentence.
5. `line` (numbers only): a last line "A: 5", the form of GSM8K's published outputs.

Of what a rule finds, a number is the last in a tag or box, else the first (where a sentence goes on
as an equation, "7 * 6 + 4 = 46", the first after its last `=`); mathematics is what is marked as
such, `$…$`, or else all of it. Anything else is no answer: the last number of a text is not taken
for one. The rules on one page: docs/tasks/answers.md.
"""

import re
from decimal import Decimal, InvalidOperation

from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

# Every quantifier is bounded or runs over a class that its successor excludes: linear time.
NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?\$?"
    r"(?:(?:\d{1,3}(?:,\d{3}){1,8}(?!\d)|\d{1,40})(?:\.\d{1,40})?|\.\d{1,40})"
)
PHRASE = re.compile(r"answer\*{0,2}(?: is\b|:| =)", re.IGNORECASE)
SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
STATED_NUMBER = re.compile(r"####[ *]{0,4}(?=[-+\u2212]?[$]?[.]?\d)")
# A box that opens or stands without braces, other braces, and escaped braces and backslashes.
BOX = re.compile(
    r"\\(?:boxed|fbox)(?![a-zA-Z])\s{0,20}(?:(\{)|([-+]?(?:\d|\.\d|\\[a-zA-Z])[^\s$]{0,200}))?"
    r"|\\(?:[{}]|\\(?!boxed|fbox))|[{}]"
)
FORMULA = re.compile(
    r"(?<!\\)\$\$?((?:[^$\\]|\\.){1,1000})\$|\\\(((?:[^\\]|\\(?!\))){1,1000})\\\)"
    r"|\\\[((?:[^\\]|\\(?!\])){1,1000})\\\]",
    re.DOTALL,
)
BETWEEN_FORMULAS = re.compile(r"\$?\s{0,3}(?:,|;|,?\s?(?:and|or))\s{0,3}")
REASON = re.compile(r",? (?:because|since|which|so|as|when|where|if|for)\b")
THOUGHTS = (
    ("<thinking>", "</thinking>"),
    ("<think>", "</think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
TAIL = 200  # characters after a phrase or hashes in which its number must stand
LONG_TAIL = 1200  # the same for mathematics


def extract_number(response: str) -> tuple[str | None, str]:
    """The answer in canonical form (`1234`, `-0.5`) or None, and the rule that found it."""
    text = outside_thoughts(response)
    if (tagged := _tagged(text)) is not None:
        return _last_number(tagged), "tag"
    if (boxed := last_box(text)) is not None:
        return _last_number(boxed), "box"
    if hashes := list(STATED_NUMBER.finditer(text)):
        return _first_number(text[hashes[-1].end() : hashes[-1].end() + TAIL]), "hashes"
    if phrases := list(PHRASE.finditer(text)):
        tail = text[phrases[-1].end() : phrases[-1].end() + TAIL]
        sentence = _before_open_box(SENTENCE_END.split(tail.lstrip("\n :*"), maxsplit=1)[0])
        return _first_number(sentence.rpartition("=")[2]) or _first_number(sentence), "phrase"
    last_line = text.rstrip()[-TAIL:].rpartition("\n")[2]
    if last_line.startswith("A:"):
        return _first_number(last_line), "line"
    return None, "hashes" if "####" in text else "no rule applies"


def extract_expression(response: str) -> tuple[str | None, str]:
    """The mathematics that a response answers with, as it is written, or None; and the rule."""
    text = outside_thoughts(response)
    if (tagged := _tagged(text)) is not None:
        boxed = last_box(tagged)
        phrases = list(PHRASE.finditer(tagged))
        rest = tagged[phrases[-1].end() :].lstrip("\n :*") if phrases else tagged
        return (boxed if boxed is not None else _stated(rest)).strip() or None, "tag"
    if (boxed := last_box(text)) is not None:
        return boxed.strip() or None, "box"
    if phrases := list(PHRASE.finditer(text)):
        tail = text[phrases[-1].end() : phrases[-1].end() + LONG_TAIL].lstrip("\n :*")
        if not FORMULA.match(tail):
            tail = REASON.split(SENTENCE_END.split(tail, maxsplit=1)[0], maxsplit=1)[0]
        return _before_open_box(_stated(tail)).strip(" *\n") or None, "phrase"
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


def final_part(response: str) -> str:
    """What a response says besides its thoughts: nothing of a thought that is never closed.

    A response in the node tags of the search answers in its last closed `<answer>` tag; else what
    stands outside closed thoughts is the answer's part. Linear time.
    """
    text = outside_thoughts(response)
    tagged = _tagged(text)
    return (text if tagged is None else tagged).strip()


def outside_thoughts(response: str) -> str:
    """The text outside thoughts, closed or not."""
    text = outside_unfinished_thinking(response)
    for opening, closing in THOUGHTS:
        parts = text.split(opening)
        text = parts[0] + "".join(part.partition(closing)[2] for part in parts[1:])
        text = text.rpartition(closing)[2]  # chat templates may open the thought in the prompt
    return text


def outside_unfinished_thinking(text: str) -> str:
    """The text up to a thinking tag that is never closed."""
    for opening, closing in THOUGHTS:
        start = text.rfind(opening)
        if start >= 0 and text.find(closing, start) < 0:
            text = text[:start]
    return text


def last_box(text: str) -> str | None:
    """What stands in the last box that is closed; the outer one of nested boxes. Linear time."""
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    found, open_braces = None, []
    for match in BOX.finditer(text):
        if match[0].endswith("{") and match[0][-2:] != "\\{":
            open_braces.append(match.end() if match[1] else -1)
        elif match[0] == "}" and open_braces:
            if (start := open_braces.pop()) >= 0:
                found = text[start : match.start()]
        elif match[2]:
            found = match[2].rstrip(".,;:")
    return found


def _tagged(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end] if start >= 0 else None


def _before_open_box(text: str) -> str:
    """A sentence up to a box; it was never closed, or the rule of boxes would have taken it."""
    return text.partition("\\boxed")[0].partition("\\fbox")[0]


def _stated(text: str) -> str:
    """The formulas of a text, the first and those that commas, "and" or "or" join to it; or all."""
    formulas = list(FORMULA.finditer(text)) if len(text) <= LONG_TAIL else []
    stated = []
    for i, formula in enumerate(formulas):
        if i and not BETWEEN_FORMULAS.fullmatch(text[formulas[i - 1].end() : formula.start()]):
            break
        stated.append(next(group for group in formula.groups() if group is not None))
    return ", ".join(stated) if stated else text


def _last_number(text: str) -> str | None:
    found = NUMBER.findall(text.replace("{,}", ",").replace(",\\!", ","))
    return canonical(found[-1]) if found else None


def _first_number(text: str) -> str | None:
    found = NUMBER.search(text)
    return canonical(found.group()) if found else None
