"""Equality that takes algebra. For worker processes only (marco.tasks.workers): sympy may hang.

math-verify parses and compares expressions. Its time-outs are off, since they use SIGALRM; its
extraction of plain expressions is not used, since it calls `eval`. Around it are rules of our own
where it is known to be lenient: decimals are exact, sets of an inequality are compared as sets,
equations by what makes them zero (it compares only as many solutions as the shorter one has).
"""

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from marco.tasks.equality import compare, form
from marco.tasks.latex import RELATION, bare, cut

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it logs what it cannot parse

READING = LatexExtractionConfig(
    boxed_match_priority=-1,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
    ),
)
RELATIONS: dict[str, Any] = {
    "<": sympy.Lt, ">": sympy.Gt, r"\leq": sympy.Le, r"\geq": sympy.Ge, r"\neq": sympy.Ne
}  # fmt: skip
NAMED_SETS = {r"\emptyset": sympy.S.EmptySet, "R": sympy.S.Reals, "Z": sympy.S.Integers}
CONJUNCTION = re.compile(r",? ?\\text\{ ?(and|or) ?\} ?| (and|or) ")
DIGITS = 50  # to which two irrational numbers must agree before algebra is tried


def is_equal(pair: tuple[str, str]) -> bool:
    """Whether the first of two answers equals the second, which is gold."""
    return compare(*pair, solve) is True


def solve(prediction: str, gold: str) -> bool:
    """Whether two expressions, equations, inequalities or sets are the same."""
    if "=" in prediction and "=" in gold:
        return _try(_same_relations, prediction, gold)
    if RELATION.search(prediction) and RELATION.search(gold):
        same = _try(_same_relations, prediction, gold)
        return same or _try(_same_sets, prediction, gold)
    if any(RELATION.search(text) or form(text)[0] for text in (prediction, gold)):
        return _try(_same_sets, prediction, gold)
    return _try(_same_expressions, prediction, gold)


def _try(same: Callable[[str, str], bool], prediction: str, gold: str) -> bool:
    """What cannot be read, or not be compared, is not the same."""
    try:
        return same(prediction, gold)
    except MemoryError:
        raise
    except Exception:
        return False


def _same_expressions(prediction: str, gold: str) -> bool:
    ours, golds = expression(prediction), expression(gold)
    if ours == golds or ours.is_Rational and golds.is_Rational:
        return ours == golds
    if _differ(ours, golds):
        return False
    return verify(golds, ours, numeric_precision=DIGITS, timeout_seconds=None)


@lru_cache(4096)
def expression(text: str) -> sympy.Expr:
    """A LaTeX expression, evaluated, with exact decimals and i as the imaginary unit.

    Raises ValueError if the text is none, or has no value (`1/0`).
    """
    found = parse(
        f"${text}$",
        [READING],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,  # type: ignore[arg-type]
    )
    if not found or not isinstance(found[0], sympy.Expr):
        raise ValueError(f"no expression: {text[:60]}")
    parsed: Any = found[0]
    exact: dict[Any, Any] = {f: sympy.Rational(str(f)) for f in parsed.atoms(sympy.Float)}
    for symbol in parsed.free_symbols:  # their assumptions differ from text to text
        name = symbol.name
        exact[symbol] = sympy.I if name == "i" else sympy.Symbol(name, real=True)
    value = parsed.xreplace(exact).doit()
    if value.has(sympy.zoo, sympy.nan):
        raise ValueError(f"no value: {text[:60]}")
    return value


def _differ(ours: sympy.Expr, golds: sympy.Expr) -> bool:
    """Whether two expressions have plainly different values somewhere: quick, and no proof else."""
    difference = ours - golds
    symbols = sorted(difference.free_symbols, key=str)
    point: Any = {s: sympy.Rational(sympy.prime(i + 4), 5) for i, s in enumerate(symbols)}
    value = difference.subs(point).evalf(20)
    return bool(value.is_number and value.is_finite and abs(value) > 1e-6)


def _same_relations(prediction: str, gold: str) -> bool:
    """Whether one (in)equation is the other times a constant."""
    ours, golds = _relation(prediction), _relation(gold)
    if ours.rel_op in (">", ">="):
        ours = ours.reversed
    if golds.rel_op in (">", ">="):
        golds = golds.reversed
    if ours.rel_op != golds.rel_op:
        return False
    ratio = sympy.simplify((ours.lhs - ours.rhs) / (golds.lhs - golds.rhs))
    is_sided = golds.rel_op in ("<", "<=")
    return bool(ratio.is_number and ratio.is_finite and (ratio > 0 if is_sided else ratio != 0))


def _relation(text: str) -> Any:
    """A single equation or inequality, not evaluated; ValueError if it is none."""
    sign = RELATION.search(text)
    left, right = cut(text, {sign.group() if sign else "="})
    kind = RELATIONS[sign.group()] if sign else sympy.Eq
    return kind(expression(left), expression(right), evaluate=False)


def _same_sets(prediction: str, gold: str) -> bool:
    ours, golds = solution_set(prediction), solution_set(gold)
    return ours == golds or bool(ours.is_subset(golds) and golds.is_subset(ours))


def solution_set(text: str) -> sympy.Set:
    """The set that an interval, a union, an inequality in one unknown, or a list stands for."""
    text = bare(text)
    name = text.removeprefix(r"\mathbb").strip(" {}")
    if name in NAMED_SETS:
        return NAMED_SETS[name]
    parts = cut(text, {r"\setminus", r"\backslash"})
    if len(parts) == 2:
        whole, without = map(solution_set, parts)
        return sympy.Complement(whole, without)
    kind, parts = form(text)
    if len(kind) == 2 and len(parts) == 2:
        start, end = map(expression, parts)
        return sympy.Interval(start, end, kind[0] == "(", kind[1] == ")")
    if kind in ("union", "list"):
        return sympy.Union(*map(solution_set, parts))
    if CONJUNCTION.search(text):
        links = {link for found in CONJUNCTION.findall(text) for link in found if link}
        sets = [solution_set(part) for part in CONJUNCTION.sub("\0", text).split("\0")]
        return sympy.Intersection(*sets) if links == {"and"} else sympy.Union(*sets)
    if signs := RELATION.findall(text):
        sides = [expression(side.strip()) for side in RELATION.split(text)]
        between = zip(signs, sides, sides[1:], strict=False)
        return sympy.And(*(RELATIONS[sign](a, b) for sign, a, b in between)).as_set()
    return sympy.FiniteSet(expression(text))
