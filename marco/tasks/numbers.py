"""Numbers in a model's words: each is taken whole and exactly, or not at all.

`canonical` reads a text that is a number and nothing else; `value_of` one that comes to a number (a
fraction, small arithmetic, a number with its unit); `first_number` and `last_number` look for one
in prose. What stands there as a number and cannot be read as a whole (`1,8000`, `x^{18}`, `18k`) is
given as it is written: it equals no number. Nothing is cut, so that no part of a number counts.
"""

import re
from fractions import Fraction

from marco.tasks.equality import without_unit
from marco.tasks.latex import bare, cut, number, plain

LONGEST = 1000  # characters of a number, or of a text that may come to one
LONGEST_SUM = 100  # characters of an expression
DIGITS = 400  # of a value; beyond it is none
WINDOW = 20_000  # characters at the end of a text in which its last number is looked for
SHOWN = 60  # characters of what is no number

SPACE = "[ \u00a0\u2009\u202f]"
# Atomic, as is each run of digits: what follows never makes a part of it match.
LITERAL = (
    r"(?>(?:\d{1,3}(?:,\d{3})++|\d{1,3}(?:" + SPACE + r"\d{3})++(?!\d))(?:\.\d++)?"
    r"|\d++(?: \d++/\d++|\.\d++)?|\.\d++)(?:[eE][-+]?\d++)?+"
)
OPERATOR = r"(?:[-+*/\u2212\u2013\u00d7\u00f7\u00b7^]|\\(?:times|cdot|div)(?![a-zA-Z]))"
# Commands that only set their text; any other makes a number beside it part of a formula.
SETTING = r"text|math(?:rm|bf|it|sf)|mbox|hbox|q?quad|boxed|fbox|right|[Bb]igg?[lr]?|circ|degree"
COMMAND = rf"\\(?!(?:{SETTING})[a-z]*(?![a-zA-Z]))[a-zA-Z]"
# A number, or numbers with operators between them, as long as nothing makes it part of more:
# digits, a power, an index, an unknown or a thousand (18x, 18k), a factor in brackets, a formula.
STATED = (
    r"(?:(?<![\w.)\]}])[-+\u2212\u2013])?\$?"
    r"(?<![\w.])(?<!\d,)(?<!\^)(?<![_^]\{)"
    rf"{LITERAL}(?:[ \t]?{OPERATOR}[ \t]?[-+\u2212]?\$?{LITERAL})*+"
    r"(?!,?\d|\.\d|[\^_]|[A-Za-ln-z]\d|[xyznkK](?![^\W\d_])|\(\d"
    r"|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2150-\u215e]"
    rf"|[ \t]?{COMMAND}|[ \t]?{OPERATOR}[ \t]?[({{$]{{1,4}}\d|\){{1,4}}[ \t]?[*/^])"
)
UNREADABLE = (
    rf"(?:{COMMAND}[a-zA-Z]*[ \t]?(?=\S{{0,60}}?\d)|\^\{{?|_\{{|(?<![\w.])\.?(?=\d))"
    rf"\S+(?:[ \t](?:{OPERATOR}|\\[a-zA-Z])\S*(?:[ \t](?=[$({{]*\d)\S+)?)*"
)
CANDIDATE = re.compile(rf"(?P<stated>{STATED})|{UNREADABLE}")
NUMBER = re.compile(rf"([-+\u2212\u2013]?) ?({LITERAL})")
# A sign apart from its number, where nothing stands before it.
SIGN_APART = re.compile(r"\A([-+\u2212]) (?=\$?\.?\d)")
TOKEN = re.compile(rf"\s*(?:({LITERAL})|({OPERATOR}|[(){{}}]))")
OPERATORS = {"\u2212": "-", "\u2013": "-", "\u00d7": "*", r"\times": "*", r"\cdot": "*"} | {
    "\u00b7": "*", "\u00f7": "/", r"\div": "/", "{": "(", "}": ")"
}  # fmt: skip
ENVIRONMENT = re.compile(r"\\(?:begin|end) ?\{[a-zA-Z]*\}")
WORDS = re.compile(r"(?<![\\a-zA-Z])(?:[a-zA-Z]{2,}|[^\W\d_a-zA-Z])|(?<=\d) ?[mgshlL](?![a-zA-Z])")
DIGIT = re.compile(r"(?<![^\W_])(?<!\.)\d")


def canonical(text: str) -> str | None:
    """`$1,234.50` as `1234.5`; None if it is no number, or has more than 400 digits."""
    match = NUMBER.fullmatch(text.replace("$", "").strip()) if len(text) <= LONGEST else None
    if match is None:
        return None
    try:
        value = _literal(match[2])
    except (ValueError, ZeroDivisionError):
        return None
    return _written(value if match[1] in ("", "+") else -value)


def value_of(text: str) -> str | None:
    """The canonical form of what a whole text comes to, of a chain of equals signs the last side.

    None where it is not made of numbers, `+ - * / ^` and brackets alone, but for a unit.
    """
    if len(text) > LONGEST:
        return None
    if (found := canonical(text)) is not None:
        return found
    side = bare(cut(bare(plain(text)), {"=", r"\approx"})[-1])
    for written in (side, without_unit(side.rstrip("% "))):
        value = number(written)
        value = _arithmetic(written) if value is None else value
        if value is not None:
            return _written(value)
    return None


def stated_number(text: str) -> str | None:
    """The number of a box or a tag: what all of it comes to, else the last number in its words.

    Without words around it, what cannot be read is no number in prose, but an answer that is none.
    """
    if (value := value_of(text)) is not None:
        return value
    if len(text) > LONGEST or WORDS.search(ENVIRONMENT.sub("", plain(text))):
        return last_number(text)
    return _as_written(text) if DIGIT.search(text) else None


def first_number(text: str) -> str | None:
    """The first number in prose, as it is written where it cannot be read."""
    match = CANDIDATE.search(SIGN_APART.sub(r"\1", _joined(text).strip()))
    return None if match is None else _read(match)


def last_number(text: str) -> str | None:
    """The last number in prose, within its last 20,000 characters."""
    if len(text) > WINDOW:
        text = "".join(text[-WINDOW:].split(maxsplit=1)[1:])  # without what the limit cuts in two
    match = None
    for found in CANDIDATE.finditer(_joined(text)):
        match = found
    return None if match is None else _read(match)


def _joined(text: str) -> str:
    """Thousands without what LaTeX sets between them."""
    return text.replace("{,}", ",").replace(",\\!", ",").replace("\\,", " ")


def _read(match: re.Match[str]) -> str | None:
    text = match.group()
    is_stated = match["stated"] is not None
    if not is_stated:
        text = text.rstrip("$.,;:!?*")
    value = value_of(text) if is_stated or "\\" in text or "^" in text else None
    return _as_written(text) if value is None else value


def _as_written(text: str) -> str | None:
    """What is no number, in short; None where that would read as one."""
    text = text.strip()
    text = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return text if text and canonical(text) is None else None


def _literal(text: str) -> Fraction:
    """The value of a number without a sign; ValueError where it is too large, or too small."""
    digits, _, power = text.replace(",", "").lower().partition("e")
    if power and len(power) > 4:
        raise ValueError
    whole, _, part = digits.rpartition(" ") if "/" in digits else ("", "", digits)
    value = Fraction(whole or 0) + Fraction("".join(part.split()))
    return value * Fraction(10) ** int(power) if power else value


def _written(value: Fraction) -> str | None:
    """An integer or a decimal without needless zeros, else a fraction; None beyond 400 digits."""
    top, bottom = value.numerator, value.denominator
    if max(abs(top), bottom) >= 10**DIGITS:
        return None
    twos = (bottom & -bottom).bit_length() - 1
    rest, fives = bottom >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{top}/{bottom}"
    places = max(twos, fives)
    digits = f"{abs(top) * 10**places // bottom:0{places + 1}}"
    point = len(digits) - places
    text = f"{digits[:point]}.{digits[point:]}" if places else digits
    return f"-{text}" if top < 0 else text


def _arithmetic(text: str) -> Fraction | None:
    """The value of numbers with `+ - * / ^` and brackets; None for anything else."""
    tokens: list[str] = []
    at = 0
    while match := TOKEN.match(text, at) if len(text) <= LONGEST_SUM else None:
        tokens.append(match[1] or OPERATORS.get(match[2], match[2]))
        at = match.end()
    if at != len(text) or not tokens:
        return None
    try:
        value = _sum(tokens)
    except (ValueError, ZeroDivisionError, IndexError):
        return None
    return None if tokens else value


def _sum(tokens: list[str]) -> Fraction:
    """The value of the tokens up to a bracket that closes; they are taken off the list."""
    value = _product(tokens)
    while tokens and tokens[0] in "+-":
        value += _product(tokens) if tokens.pop(0) == "+" else -_product(tokens)
    return value


def _product(tokens: list[str]) -> Fraction:
    value = _power(tokens)
    while tokens and tokens[0] in "*/":
        value = value * _power(tokens) if tokens.pop(0) == "*" else value / _power(tokens)
    return value


def _power(tokens: list[str]) -> Fraction:
    token = tokens.pop(0)
    if token in "+-":
        return _power(tokens) if token == "+" else -_power(tokens)
    value = _literal(token) if token != "(" else _sum(tokens)
    if token == "(" and tokens.pop(0) != ")":
        raise ValueError
    if not tokens or tokens[0] != "^":
        return value
    del tokens[0]
    power = _power(tokens)
    size = max(abs(value.numerator), value.denominator).bit_length()
    if power.denominator != 1 or abs(power) * size > 4 * DIGITS:
        raise ValueError
    return value ** int(power)
