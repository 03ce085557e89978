"""What counts as an answer: a number for some tasks, mathematics for others.

Thoughts hold no answer: what counts stands outside `<think>`, Sky-T1's thought marks and the tags
of the search's thoughts (`THOUGHTS`), and before one that is never closed. The first rule that
applies decides; within a rule the last match wins.

1. `tag`: the last closed `<answer>…</answer>`.
2. `box`: the last closed `\\boxed{…}` or `\\fbox{…}`, braces balanced, or `\\boxed 5`.
3. `hashes` (numbers only): what follows the last `####`, the form of GSM8K's gold answers.
4. `phrase`: what follows the last "answer is", "answer:" or "answer =", in its sentence.
5. `line` (numbers only): a last line "A: 5", the form of GSM8K's published outputs.

Of what a rule finds, a number is what all of a tag or box comes to, else the last number in its
words; in prose it is the first (where a sentence goes on as an equation, "7 * 6 + 4 = 46", the
first after its last `=`). What stands there and cannot be read as one whole number is a wrong
answer (marco.tasks.numbers). Mathematics is what is marked as such, `$…$`, or else all of it.
Anything else is no answer: the last number of a text is not taken for one. The rules on one page:
docs/tasks/answers.md.
"""

import re

from marco.tasks.numbers import canonical, first_number, stated_number
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

# What opens and what closes a thought: of models that think, and the node tags of conf/kinds. An
# answer's tag is none. Every grader and error class goes by this list alone.
TAGS = ("think", "thinking", "sub-task", "hypothesis", "reflection", "double-check", "reclarify")
THOUGHTS = (
    *((f"<{tag}>", f"</{tag}>") for tag in TAGS),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
CLOSING = dict(THOUGHTS)
OPENING = re.compile("|".join(map(re.escape, CLOSING)))
# Every quantifier is bounded or runs over a class that its successor excludes: linear time.
PHRASE = re.compile(r"answer\*{0,2}(?: is\b|:| =)", re.IGNORECASE)
SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
STATED_NUMBER = re.compile(r"####[ *]{0,4}(?=[-+\u2212\u2013]? ?[$]?-?[.]?\d)")
LIST_MARK = re.compile(r"[-+] ")
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
TAIL = 200  # characters after a phrase or hashes in which its number must stand
LONG_TAIL = 1200  # the same for mathematics


def extract_number(response: str) -> tuple[str | None, str]:
    """The answer in canonical form (`1234`, `-0.5`) or None, and the rule that found it.

    An answer that cannot be read as one number is given as it is written.
    """
    text = outside_thoughts(response)
    if (tagged := _tagged(text)) is not None:
        boxed = last_box(tagged)
        # After an answer in words an exclamation mark is none of a factorial.
        stated = _after_phrase(tagged).rstrip(" \n!") if boxed is None else boxed
        return stated_number(stated), "tag"
    if (boxed := last_box(text)) is not None:
        return stated_number(boxed), "box"
    if hashes := list(STATED_NUMBER.finditer(text)):
        return first_number(_tail(text, hashes[-1].end())), "hashes"
    if phrases := list(PHRASE.finditer(text)):
        tail = _tail(text, phrases[-1].end())
        stated = tail.lstrip("\n :*")
        if "\n" in tail[: len(tail) - len(stated)]:  # an answer that is a list of its own
            stated = LIST_MARK.sub("", stated, count=1) if LIST_MARK.match(stated) else stated
        sentence = _before_open_box(SENTENCE_END.split(stated, maxsplit=1)[0])
        return first_number(sentence.rpartition("=")[2]) or first_number(sentence), "phrase"
    last_line = text.rstrip().rpartition("\n")[2]
    if last_line.startswith("A:"):
        return first_number(_tail(last_line, len("A:"))), "line"
    return None, "hashes" if "####" in text else "no rule applies"


def extract_expression(response: str) -> tuple[str | None, str]:
    """The mathematics that a response answers with, as it is written, or None; and the rule."""
    text = outside_thoughts(response)
    if (tagged := _tagged(text)) is not None:
        boxed = last_box(tagged)
        stated = _stated(_after_phrase(tagged)) if boxed is None else boxed
        return stated.strip() or None, "tag"
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


def final_part(response: str) -> str:
    """What a response says besides its thoughts: nothing of a thought that is never closed.

    A response in the node tags of the search answers in its last closed `<answer>` tag; else what
    stands outside closed thoughts is the answer's part. Linear time.
    """
    text = outside_thoughts(response)
    tagged = _tagged(text)
    return (text if tagged is None else tagged).strip()


def outside_thoughts(response: str) -> str:
    """The text outside thoughts, closed or not; of one in another the outer one counts."""
    parts, start = [], 0
    while opening := OPENING.search(response, start):
        parts.append(response[start : opening.start()])
        closing = CLOSING[opening.group()]
        end = response.find(closing, opening.end())
        start = len(response) if end < 0 else end + len(closing)
    text = "".join([*parts, response[start:]])
    for closing in CLOSING.values():  # chat templates may open the thought in the prompt
        text = text.rpartition(closing)[2]
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


def _after_phrase(text: str) -> str:
    phrases = list(PHRASE.finditer(text))
    return text[phrases[-1].end() :].lstrip("\n :*") if phrases else text


def _tail(text: str, start: int) -> str:
    """What follows, without a last word that the limit would cut in two."""
    tail = text[start : start + TAIL]
    if len(text) > start + TAIL and not text[start + TAIL].isspace():
        tail = tail[: max(tail.rfind(" "), tail.rfind("\n"), 0)]
    return tail


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
