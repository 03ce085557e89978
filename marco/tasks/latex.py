"""LaTeX answers in one spelling, cut into parts, and read as numbers. Nothing is evaluated."""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

UNICODE = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2215": "/", "\u2044": "/", "\u00f7": "/",
        "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2217": "*",
        "\u03c0": r"\pi ", "\u03b8": r"\theta ", "\u221e": r"\infty ", "\u00b1": r"\pm ",
        "\u2264": r"\leq ", "\u2265": r"\geq ", "\u2260": r"\neq ", "\u2248": r"\approx ",
        "\u2208": r"\in ", "\u222a": r"\cup ", "\u2205": r"\emptyset ", "\u211d": r"\mathbb{R}",
        "\u00b0": "", "\u00b2": "^2", "\u00b3": "^3", "\u20ac": "", "\u00a3": "", "~": " ",
        "\u00bc": r"\frac{1}{4}", "\u00bd": r"\frac{1}{2}", "\u00be": r"\frac{3}{4}",
    }
)  # fmt: skip

# In this order. Where a quantifier is not bounded it runs over one class, and the texts are short.
SPELLINGS = tuple(
    (re.compile(pattern), spelling)
    for pattern, spelling in (
        (r"(\\(?:sin|cos|tan|cot|sec|csc) ?\(? ?)(\d+(?:\.\d+)?) ?\^ ?\{? ?\\circ ?\}?",
         r"\1{\\frac{\2\\pi}{180}}"),
        (r"(?<=[\w)])\*\*(?=[\w({-])", "^"),
        (r"(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        (r"\u221a\s*(\d+)", r"\\sqrt{\1}"),
        (r"\u221a", r"\\sqrt "),
        (r"\\?\$|(?<!\\)\\[()\[\]]", ""),
        (r",\s*\\!\s*(?=\d)|\{,\}(?=\d{3}(?!\d))", ""),  # thousands
        (r"(?<=\d)\{,\}(?=\d)", "."),
        (r"(?<!\\)\\!|\\(?:displaystyle|textstyle|limits|boldsymbol|mathbf|mathit|bm|bf|rm|it)"
         r"(?![a-zA-Z])|\\(?:boxed|fbox)(?![a-zA-Z])|\^\s*\{?\s*\\circ\s*\}?"
         r"|\\degrees?(?![a-zA-Z])|\\[hv]?phantom\s*(?:\{[^{}]*\}|[^\s{])", ""),
        (r"\\(?:left|right|middle|[bB]igg?[lmr]?)(?![a-zA-Z])\s*\.?", ""),
        (r"(?<!\\)\\[,;:> ]|\\q?quad(?![a-zA-Z])", " "),
        (r"\\l(?:brace|angle)(?![a-zA-Z])", lambda m: r"\{" if m[0] == r"\lbrace" else "("),
        (r"\\r(?:brace|angle)(?![a-zA-Z])", lambda m: r"\}" if m[0] == r"\rbrace" else ")"),
        (r"\\(?:mathrm|text|operatorname)\s*\{\s*([eid])\s*\}", r"\1"),
        (r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|mbox|hbox|mathrm|mathsf|operatorname)\*?\s*\{",
         r"\\text{"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\\(?!frac|sqrt)[a-zA-Z]+) ?(?=[\w{\\])", r"\\frac{\1}"),
        (r"\\frac\s*([^\s{\\])", r"\\frac{\1}"),
        (r"\\frac\s*(\{[^{}]*\})\s*([^\s{\\])", r"\\frac\1{\2}"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\\(?!frac|sqrt|text)[a-zA-Z]+)", r"\\frac\1{\2}"),
        (r"\\?(?<![a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([^\s{\[\\(])", r"\\sqrt{\1}"),
        (r"\\leq?(?:slant)?(?![a-zA-Z])|<=", r"\\leq "),
        (r"\\geq?(?:slant)?(?![a-zA-Z])|>=", r"\\geq "),
        (r"\\neq?(?![a-zA-Z])|!=", r"\\neq "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\varnothing|\\\{\s*\\\}", r"\\emptyset"),
        (r"(?<![\\a-zA-Z])infinity(?![a-zA-Z])", r"\\infty"),
        (r"\\%|\\text\{\s*percent\s*\}|(?<=[\d}])\s*percent(?![a-zA-Z])", "%"),
        (r"([_^])\s*\{\s*(\w)\s*\}(?!\w)", r"\1\2"),
        (r"(?<=\d)\s*(?:\^\s*\{?\s*\\text\{\s*(?:st|nd|rd|th)\s*\}\s*\}?|(?:st|nd|rd|th)(?![a-zA-Z]))",
         ""),
        (r"\\text\{\s*\}", " "),
        (r"\s+", " "),
    )
)  # fmt: skip
AND_OR = re.compile(r",? ?(?:\\text\{ ?,? ?(?:and|or) ?,? ?\}| (?:and|or) )")
RELATION = re.compile(r"<|>|\\leq|\\geq|\\neq")
# x \in …, and what is left of {x | x > 2} without its braces
MEMBER = re.compile(
    r"^[a-zA-Z] ?(?:\\in(?![a-zA-Z])|(?:\\mid|[|:])(?=[^|]*(?:<|>|\\leq|\\geq|\\neq)))"
)
SPACE = re.compile(r"(?<!\d) | (?!\d)")
TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|[()\[\]{},;=<>]", re.DOTALL)
OPENING = {"(", "[", "{", r"\{", r"\begin"}
CLOSING = {")", "]", "}", r"\}", r"\end"}
AROUND_ONE = (("(", ")"), ("[", "]"), (r"\{", r"\}"))
MATRIX = re.compile(
    r"(?:[(\[] ?)?\\begin ?\{([pbB]?matrix|array)\} ?(?:\{[lcr| ]*\})?(.*)\\end ?\{\1\}(?: ?[)\]])?"
)

LONGEST = 2000  # characters of a number
DECIMAL = r"(?:\d{1,3}(?:[, ]\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
NUMBERS = tuple(
    re.compile(r"(?P<sign>[-+]?) ?" + form)
    for form in (
        rf"(?P<value>{DECIMAL})(?:[eE](?P<e>[-+]?\d{{1,3}})"
        r"| ?(?:\\times|\\cdot|\*) ?10 ?\^ ?\{? ?(?P<power>[-+]?\d{1,3}) ?\}?)?",
        r"(?P<value>10) ?\^ ?\{? ?(?P<ten>[-+]?\d{1,3}) ?\}?",
        rf"(?:(?P<whole>\d+) ?)?\\frac ?\{{ ?(?P<over>[-+]? ?{DECIMAL}) ?\}} ?"
        rf"\{{ ?(?P<under>[-+]? ?{DECIMAL}) ?\}}",
        rf"(?:(?P<whole>\d+) )?(?P<over>{DECIMAL}) ?/ ?(?P<under>{DECIMAL})",
        rf"(?P<over>{DECIMAL}) ?: ?(?P<under>{DECIMAL})",
        r"(?P<start>\d*\.\d*) ?\\overline ?\{ ?(?P<period>\d+) ?\}",
    )
)


@lru_cache(4096)  # gold answers come again and again
def plain(text: str) -> str:
    """The same answer in one spelling: no sizes, styles, units of angle, signs of currency.

    Thousands lose their separators where LaTeX marks them as such (`1{,}000`, `1,\\!000`), and
    "and" and "or" between answers become commas. Time grows with the square of the length at
    worst, so long texts are for the caller to refuse.
    """
    text = text.translate(UNICODE)
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    if not RELATION.search(text):  # "x > 1 and x < 3" is no list
        text = AND_OR.sub(", ", text)
    return re.sub(r", ?,", ",", text).strip()


def compact(text: str) -> str:
    """The text without the spaces that mean nothing; `1 1/2` is not `11/2`."""
    return SPACE.sub("", text)


def bare(text: str) -> str:
    """The text without what stands around an answer: full stops, `x \\in`, brackets of one part."""
    before = None
    while text != before:
        before = text
        text = text.strip(" *`").rstrip(".,;: ").removeprefix("=").removeprefix(r"\approx")
        text = MEMBER.sub("", text).strip()
        inner = text.removeprefix(r"\text")
        if surrounding(inner) == ("{", "}"):
            text = inner[1:-1]
        elif (ends := surrounding(text)) in AROUND_ONE and ends:
            inner = text[len(ends[0]) : -len(ends[1])]
            text = inner if len(cut(inner, {",", ";"})) == 1 else text
    return text


def cut(text: str, separators: set[str]) -> list[str]:
    """The parts of a text between separators that no bracket encloses; whole if unbalanced."""
    parts, start, depth = [], 0, 0
    for token, at in _tokens(text):
        depth += (token in OPENING) - (token in CLOSING)
        if depth < 0:
            return [text]
        if depth == 0 and token in separators:
            parts.append(text[start:at].strip())
            start = at + len(token)
    return [text] if depth else [*parts, text[start:].strip()]


def surrounding(text: str) -> tuple[str, str] | None:
    """The brackets that enclose all of a text; those of an interval need not be of one kind."""
    depth, first, last = 0, "", ""
    for token, at in _tokens(text):
        if token in OPENING or token in CLOSING:
            if (depth == 0) != (at == 0):
                return None  # it begins outside, or closes before the end
            first, last = first or token, token
            depth += 1 if token in OPENING else -1
            if depth == 0 and at + len(token) != len(text):
                return None
    return (first, last) if first and depth == 0 else None


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    return ((match.group(), match.start()) for match in TOKEN.finditer(text))


def number(text: str) -> Fraction | None:
    """The value of a decimal, fraction, mixed number, ratio or power of ten, exactly.

    None for anything else, and for what is longer than any answer: Python reads 4,300 digits.
    """
    if len(text) > LONGEST:
        return None
    for form in NUMBERS:
        if match := form.fullmatch(text):
            try:
                value = _value(match.groupdict())
            except ZeroDivisionError:
                return None
            return -value if match["sign"] == "-" else value
    return None


def _value(groups: dict[str, str | None]) -> Fraction:
    if period := groups.get("period"):
        start = groups["start"] or ""
        places = len(start.partition(".")[2])
        ninths = Fraction(int(period), 10 ** len(period) - 1)
        return _decimal(f"0{start}0") + ninths / 10**places
    if over := groups.get("over"):
        return int(groups.get("whole") or 0) + _decimal(over) / _decimal(groups["under"] or "")
    power = groups.get("power") or groups.get("e")
    if ten := groups.get("ten"):
        return Fraction(10) ** int(ten)
    return _decimal(groups["value"] or "") * Fraction(10) ** int(power or 0)


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))
