"""When two mathematical answers are equal: our own rules, which come before math-verify's.

`compare` takes answers apart (lists, tuples, intervals, unions, matrices, equations) and decides
what needs no algebra: numbers exactly, words, units, bases, percentages. What is left goes to
`solve`: in the process that grades it says None, "not known here"; in a worker it is
`marco.tasks.symbolic.solve`. The rules on one page: docs/tasks/answers.md.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from marco.tasks.latex import MATRIX, RELATION, bare, compact, cut, number, plain, surrounding

Solve = Callable[[str, str], bool | None]

# What stands for its value before an equals sign: y, f(x), x_1, AB, \theta, (x, y), \text{Area}.
NAME = re.compile(
    r"\\?[a-zA-Z]{1,10}(?:_\w|')?(?:\^ ?\{? ?-1 ?\}?)?(?: ?\([^()=]{1,10}\))?"
    r"|\\text\{[^{}]*\}|\([a-zA-Z, ]{3,9}\)"
)
BASE = re.compile(r"\(?(?:\\text\{)?(\d[\dA-F]*|[A-F]+\d[\dA-F]*)\}?\)? ?_ ?\{?(\d{1,2})\}?")
WORD = re.compile(r"[a-zA-Z][a-zA-Z .'-]*")
ARTICLE = re.compile(r"^(?:an?|the) ", re.IGNORECASE)
CHOICE = re.compile(r"(?:\\text)?\{? ?\(([A-Z])\)[ :.}]")
LETTER = re.compile(r"(?<![a-zA-Z\\])[A-Z](?![a-zA-Z])")  # of another choice
CONSTANTS = {r"\pi", "e", "i"}
UNIT_TEXT = re.compile(r"\\text\{([^{}\d]*)\} ?(?:\^ ?\{? ?[23] ?\}?)?")
UNIT_WORDS = re.compile(r"(?:\d[)}]*|\\pi)( ?)([A-Za-z][A-Za-z. ]*?) ?(?:\^ ?\{? ?[23] ?\}?)?$")
# One name for each unit that tells answers apart; other words after a number are only dropped.
UNITS = {
    "mm": "mm", "millimeter": "mm", "cm": "cm", "centimeter": "cm", "centimetre": "cm",
    "m": "m", "meter": "m", "metre": "m", "km": "km", "kilometer": "km", "kilometre": "km",
    "in": "in", "inch": "in", "inche": "in", "ft": "ft", "foot": "ft", "feet": "ft",
    "yd": "yd", "yard": "yd", "mi": "mi", "mile": "mi", "g": "g", "gram": "g", "kg": "kg",
    "kilogram": "kg", "lb": "lb", "pound": "lb", "s": "s", "sec": "s", "second": "s",
    "min": "min", "minute": "min", "h": "h", "hr": "h", "hour": "h", "day": "day",
    "cent": "cent", "dollar": "dollar", "am": "am", "pm": "pm",
}  # fmt: skip
MATHEMATICS = {
    "pi", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "mod", "frac",
    "times", "if", "for", "where", "and", "or", "choose", "inf", "infinity",
}  # fmt: skip


def unknown(prediction: str, gold: str) -> bool | None:
    """The `solve` of a process that does no algebra."""
    return None


def compare(prediction: str, gold: str, solve: Solve = unknown) -> bool | None:
    """Whether a prediction equals the gold answer; None where `solve` does not know."""
    return _compare(plain(prediction), plain(gold), solve)


def _compare(prediction: str, gold: str, solve: Solve) -> bool | None:
    prediction, gold = bare(prediction), bare(gold)
    if not prediction or not gold:
        return False
    if compact(prediction) == compact(gold):
        return True
    value, gold_value = number(prediction), number(gold)
    if value is not None and gold_value is not None:
        return value == gold_value
    (kind, parts), (gold_kind, gold_parts) = form(prediction), form(gold)
    sides = [prediction] if kind else cut(prediction, {"="})
    gold_sides = [gold] if gold_kind else cut(gold, {"="})
    if len(sides) > 1 or len(gold_sides) > 1:
        return _compare_sides(sides, gold_sides, solve)
    if not kind and not gold_kind:
        return _compare_single(prediction, gold, solve)
    if kind == gold_kind:
        in_order = kind not in ("list", "union")
        answer = (_in_order if in_order else _in_any_order)(parts, gold_parts, solve)
        if kind != "union" or answer is not False:
            return answer  # unions of other intervals may be the same
    elif not (_may_be_set(prediction) or _may_be_set(gold)):
        return False
    return solve(prediction, gold)


def form(text: str) -> tuple[str, list[str]]:
    """What an answer is made of: its kind (empty: one expression) and its parts.

    Bare lists and `{…}` are a `list`, in any order; other brackets keep order and are a kind.
    """
    if len(parts := cut(text, {",", ";"})) > 1:
        return "list", [sign for part in parts for sign in _both_signs(part)]
    brackets = surrounding(text)
    if brackets and brackets[0] == r"\{":
        parts = cut(text[len(brackets[0]) : -len(brackets[1])], {",", ";"})
        return "list", [sign for part in parts for sign in _both_signs(part)]
    if len(parts := _both_signs(text)) > 1:
        return "list", parts
    if len(parts := cut(text, {r"\cup"})) > 1:
        return "union", parts
    if match := MATRIX.fullmatch(text):
        rows = [row.split("&") for row in match[2].split(r"\\") if row.strip()]
        return f"matrix{[len(row) for row in rows]}", [cell for row in rows for cell in row]
    if brackets is None:
        return "", [text]
    inner = text[len(brackets[0]) : -len(brackets[1])]
    return "".join(brackets), cut(inner, {",", ";"})


def _both_signs(text: str) -> list[str]:
    if r"\pm" not in text and r"\mp" not in text:
        return [text]
    upper = text.replace(r"\pm", "+").replace(r"\mp", "-")
    lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
    return [side.strip().removeprefix("+").strip() for side in (upper, lower)]


def _may_be_set(text: str) -> bool:
    return bool(RELATION.search(text)) or any(s in text for s in (r"\cup", r"\mathbb", r"\setm"))


def _in_order(parts: Sequence[str], gold_parts: Sequence[str], solve: Solve) -> bool | None:
    if len(parts) != len(gold_parts):
        return False
    return _and(_compare(part, gold, solve) for part, gold in zip(parts, gold_parts, strict=True))


def _and(answers: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is."""
    known = True
    for answer in answers:
        if answer is False:
            return False
        known = known and answer is not None
    return True if known else None


def _in_any_order(parts: Sequence[str], gold_parts: Sequence[str], solve: Solve) -> bool | None:
    """Whether each gold part has a part of its own; the gold answer bounds the work."""
    if len(parts) != len(gold_parts):
        return False
    left, known = list(parts), True
    for gold in gold_parts:
        is_possible = False
        for i, part in enumerate(left):
            if answer := _compare(part, gold, solve):
                del left[i]
                break
            is_possible = is_possible or answer is None
        else:
            if not is_possible:
                return False
            known = False
    return True if known else None


def _compare_sides(sides: list[str], gold_sides: list[str], solve: Solve) -> bool | None:
    """Equations: `y = 2x + 3` is `2x + 3`; of a chain the last side is what it comes to."""
    if len(gold_sides) == 1:
        return _compare(sides[-1], gold_sides[0], solve)
    names_value = bool(NAME.fullmatch(gold_sides[0])) or number(gold_sides[0]) is not None
    if len(sides) == 1:
        return _compare(sides[0], gold_sides[-1], solve) if names_value else False
    same = _and(_compare(sides[i], gold_sides[i], solve) for i in (0, -1))
    crossed = _and(_compare(sides[-1 - i], gold_sides[i], solve) for i in (0, -1))
    if same or crossed:
        return True
    if names_value and compact(sides[0]) == compact(gold_sides[0]):
        return same
    return solve("=".join(sides), "=".join(gold_sides))


def _compare_single(prediction: str, gold: str, solve: Solve) -> bool | None:
    """Two expressions without a comma or an equals sign."""
    if len(sides := cut(prediction, {r"\approx"})) > 1:
        return _compare(_side_that_counts(sides, gold), gold, solve)
    if "%" in prediction[-1] + gold[-1]:
        return _compare_percent(prediction, gold, solve)
    if BASE.fullmatch(prediction) or BASE.fullmatch(gold):
        return _compare_bases(prediction, gold)
    (value, unit), (gold_value, gold_unit) = _value_and_unit(prediction), _value_and_unit(gold)
    if unit or gold_unit:
        known = {UNITS[name] for name in (unit, gold_unit) if name in UNITS}
        return False if len(known) > 1 else _compare(value, gold_value, solve)
    answer = _compare_words(prediction, gold)
    return solve(prediction, gold) if answer is None else answer


def _side_that_counts(sides: list[str], gold: str) -> str:
    """Of `a ≈ b` the exact side, the first; the last where a is a name, or gold a decimal."""
    is_name = bool(NAME.fullmatch(sides[0])) and compact(sides[0]) not in CONSTANTS
    is_rounded = number(gold) is not None and "." in gold
    return sides[-1] if is_name or is_rounded else sides[0]


def _compare_percent(prediction: str, gold: str, solve: Solve) -> bool | None:
    """A percent sign may be dropped (50% is 50), or mean a hundredth (50% is 1/2)."""
    signless, signless_gold = prediction.rstrip("% "), gold.rstrip("% ")
    value, gold_value = number(signless), number(signless_gold)
    if value is None or gold_value is None:
        return _compare(signless, signless_gold, solve)
    if value == gold_value:
        return True
    hundredth = value / 100 if prediction.endswith("%") else value
    return hundredth == (gold_value / 100 if gold.endswith("%") else gold_value)


def _compare_bases(prediction: str, gold: str) -> bool:
    """Digits with a base: the base may be left out, but not be another."""
    written = [BASE.fullmatch(text) for text in (prediction, gold)]
    digits = [m[1] if m else compact(t) for m, t in zip(written, (prediction, gold), strict=True)]
    return digits[0] == digits[1] and len({match[2] for match in written if match}) == 1


def _compare_words(prediction: str, gold: str) -> bool | None:
    """Words by their letters in either case; None where one of them may be mathematics."""
    if len(gold) == 1 and gold.isupper() and (choice := CHOICE.match(prediction)):
        return choice[1] == gold and not LETTER.search(prediction, choice.end())
    word, gold_word = _word(prediction), _word(gold)
    if word and gold_word:
        return word == gold_word
    is_number = number(prediction if gold_word else gold) is not None
    return False if is_number and (word or gold_word) else None


def _word(text: str) -> str | None:
    """A text answer or a single letter; None for what may be a product of variables."""
    stripped = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text).strip()
    if not WORD.fullmatch(stripped):
        return None
    letters = re.sub(r"[ .'-]", "", ARTICLE.sub("", stripped))
    return letters if len(letters) == 1 else letters.casefold() if len(letters) > 2 else None


def without_unit(text: str) -> str:
    """The value without the unit that is written behind it."""
    return _value_and_unit(text)[0]


def _value_and_unit(text: str) -> tuple[str, str | None]:
    """The value, and the unit that is written behind it."""
    unit = None
    while (start := text.rfind(r"\text")) > 0 and (match := UNIT_TEXT.fullmatch(text[start:])):
        text, unit = text[:start].strip(), _unit_name(match[1])
    if unit is None and (match := UNIT_WORDS.search(text)):
        first = match[2].split()[0].lower()
        is_word = len(first) > 2 and bool(match[1]) or len(first) > 1 and _unit_name(first) in UNITS
        if is_word and not MATHEMATICS & set(match[2].lower().split()):
            text, unit = text[: match.start(1)], _unit_name(match[2])
    return text, unit


def _unit_name(text: str) -> str:
    """The unit without its plural: `square inches` is `inche`, `p.m.` is `pm`."""
    words = text.lower().replace(".", "").split() or ["-"]
    if "per" in words:
        return "-"
    return words[-1] if words[-1] in UNITS else words[-1].removesuffix("s") or "-"
