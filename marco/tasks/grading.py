"""Verdicts on mathematics: extraction, cheap rules here, algebra in killable workers.

What the rules of marco.tasks.equality decide never leaves this process. Of the rest, what a
symbolic engine is known to choke on is refused, and the others go to workers, many at once.
"""

import logging
import re
from collections.abc import Sequence
from functools import cache

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from marco.tasks.answers import extract_expression
from marco.tasks.equality import compare
from marco.tasks.latex import bare, compact, number, plain
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict
from marco.tasks.workers import Failed, Workers

EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?(\d+)")
TOWER = re.compile(r"\^\s*\{?\s*[-+\d.()!]+\s*\}?\s*\^")
FACTORIAL = re.compile(r"(\d+)\s*!")
SHOWN = 200  # characters of an answer that a verdict repeats

log = logging.getLogger(__name__)


class GradingConfig(BaseModel):
    """What the grading of mathematics may cost; what goes beyond is wrong, and flagged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processes: PositiveInt
    limit_s: PositiveFloat
    memory_mb: PositiveInt
    max_characters: PositiveInt
    max_nesting: PositiveInt
    max_exponent: PositiveInt
    max_factorial: PositiveInt
    remembered: PositiveInt


def grade(items: Sequence[tuple[str, str]], config: GradingConfig) -> list[Verdict]:
    """The verdicts on many (response, gold answer), in their order."""
    return _grader(config).grade(items)  # type: ignore[arg-type]  # frozen, so hashable


def canonical_expression(response: str, config: GradingConfig) -> str | None:
    """The answer of a response, so written that equal answers mostly are the same text."""
    answer, _ = extract_expression(response)
    if answer is None or _refusal(answer, config):
        return answer and answer[:SHOWN]
    text = bare(plain(answer))
    value = number(text)
    return compact(text) if value is None else str(value)


class _Grader:
    """The workers of a config, and what they found before."""

    def __init__(self, config: GradingConfig) -> None:
        self.config = config
        self.found: dict[tuple[str, str], bool | Failed] = {}
        self.workers = Workers(
            "marco.tasks.symbolic:is_equal",
            processes=config.processes,
            timeout_s=config.limit_s,
            memory_mb=config.memory_mb,
        )

    def grade(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        verdicts: list[Verdict | None] = [None] * len(items)
        open_items: dict[int, tuple[tuple[str, str], str]] = {}
        for i, (response, gold) in enumerate(items):
            answer, rule = extract_expression(response)
            if answer is None:
                verdicts[i] = Verdict(NO_ANSWER, None, rule)
            elif refusal := _size_refusal(answer, self.config):
                verdicts[i] = _flagged(answer, rule, refusal)
            elif (is_equal := compare(answer, gold)) is not None:
                verdicts[i] = _verdict(answer, rule, is_equal, "by its parts")
            elif refusal := _refusal(answer, self.config):
                verdicts[i] = _flagged(answer, rule, refusal)
            else:
                open_items[i] = (answer, gold), rule
        answers = self._ask(list(dict.fromkeys(pair for pair, _ in open_items.values())))
        for i, (pair, rule) in open_items.items():
            found = answers[pair]
            if isinstance(found, Failed):
                verdicts[i] = _flagged(pair[0], rule, found.why)
            else:
                verdicts[i] = _verdict(pair[0], rule, found, "by algebra")
        return [verdict for verdict in verdicts if verdict is not None]

    def _ask(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], bool | Failed]:
        new = [pair for pair in pairs if pair not in self.found]
        for pair, found in zip(new, self.workers.map(new), strict=True):
            self.found[pair] = found
        answers = {pair: self.found[pair] for pair in pairs}
        while len(self.found) > self.config.remembered:
            del self.found[next(iter(self.found))]
        return answers


@cache
def _grader(config: GradingConfig) -> _Grader:
    """One for all tasks of a process that share a config."""
    return _Grader(config)


def _verdict(answer: str, rule: str, is_equal: bool, how: str) -> Verdict:
    told = f"{rule}; {'equal' if is_equal else 'not equal'} {how}"
    return Verdict(CORRECT if is_equal else WRONG, answer, told)


def _flagged(answer: str, rule: str, why: str) -> Verdict:
    log.warning("graded as wrong without a comparison (%s): %r", why, answer[:SHOWN])
    shown = answer if len(answer) <= SHOWN else answer[:SHOWN] + "…"
    return Verdict(WRONG, shown, f"{rule}; {why}", is_flagged=True)


def _size_refusal(answer: str, config: GradingConfig) -> str | None:
    """Why an answer is too large to be taken apart."""
    if len(answer) > config.max_characters:
        return f"longer than {config.max_characters} characters"
    depth = deepest = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return f"nested deeper than {config.max_nesting}" if deepest > config.max_nesting else None


def _refusal(answer: str, config: GradingConfig) -> str | None:
    """Why an answer is not for a symbolic engine."""
    if why := _size_refusal(answer, config):
        return why
    if TOWER.search(answer):
        return "a tower of powers"
    if any(int(power) > config.max_exponent for power in EXPONENT.findall(answer)):
        return f"an exponent above {config.max_exponent}"
    if any(int(digits) > config.max_factorial for digits in FACTORIAL.findall(answer)):
        return f"a factorial above {config.max_factorial}"
    return None
