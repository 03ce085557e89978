"""Error classes of a response, after arXiv 2503.01461: what went wrong with its long thoughts.

- `content_repetition`: it runs in a loop, exact or nearly so, at its end or amid it.
- `instruction_failure`: it gives no answer, and thinks where the answer alone was asked for, or
  ends its thoughts of its own accord. Thoughts with an answer after them are no failure.
- `over_reflection`: it doubts itself again and again and finds nothing new.
- `truncation`: it was cut off. Counted apart (`truncation` of a task's figures): this says how it
  ended, not what went wrong.

Thresholds, how they were chosen and how well they do: docs/error_classes.md. Every step takes time
in proportion to the response (its logarithm besides, for exact loops).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from marco.evaluation.errors.loops import FEWEST_REPEATS, codes, longest_run, near_runs
from marco.evaluation.errors.sentences import Sentence, forms_of, sentences_of
from marco.tasks.answers import THOUGHTS, final_part
from marco.tasks.verdict import CORRECT, NO_ANSWER

ErrorClass = Literal["content_repetition", "instruction_failure", "over_reflection", "truncation"]
ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)
# A loop explains what else is wrong; a thought where none was asked, the doubts in it.
PRIMARY: tuple[ErrorClass, ...] = ERROR_CLASSES[:3]
CUT = "length"  # the finish of a response that reached its token limit
EXCERPT = 60  # characters of a loop that are shown as evidence
# A result is a number, or what stands right of an equals sign.
RESULT = re.compile(r"\d+(?:[.,/]\d+)*+|=[^=\n]{1,80}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExactLoopConfig(_Section):
    """From when on equal copies of a block of characters are a loop."""

    repeats: int = Field(ge=FEWEST_REPEATS)
    characters: PositiveInt
    max_period: PositiveInt


class NearLoopConfig(_Section):
    """From when on sentences that nearly equal earlier ones are a loop."""

    agreement: float = Field(gt=0, lt=1)
    compared: PositiveInt
    repeats: PositiveInt
    sentences: PositiveInt
    last_sentences: PositiveInt
    max_period: PositiveInt


class ReflectionConfig(_Section):
    """From when on reflection is too much; `openers` are how its sentences begin."""

    openers: tuple[str, ...] = Field(min_length=1)
    least: PositiveInt
    per_100: float = Field(gt=0)
    run: PositiveInt


class InstructionConfig(_Section):
    """What a thought is known by beside its tags (`THOUGHTS`), and from when on it is long."""

    openers: tuple[str, ...]
    sentences: PositiveInt
    characters: PositiveInt


class ErrorClassesConfig(_Section):
    """The thresholds of all classes; the numbers stand in `conf/error_classes/`."""

    exact_loop: ExactLoopConfig
    near_loop: NearLoopConfig
    reflection: ReflectionConfig
    instruction: InstructionConfig


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An error class of a response: where it starts (in characters), and what shows it.

    `period` is the length of a loop in characters, None for other classes.
    """

    name: ErrorClass
    start: int
    period: int | None = None
    evidence: str


def classify(
    response: str, *, finish: str | None, verdict: str, simple: bool, config: ErrorClassesConfig
) -> tuple[Finding, ...]:
    """All error classes of a response, in the order of `ERROR_CLASSES`.

    `finish` is `stop`, `length`, or None where it is not known: then a thought that is left open
    counts as cut off. `simple` says that the task asks for the answer alone.
    """
    sentences = sentences_of(response)
    truncation = _truncation(response, finish)
    ended = simple or truncation is None
    found = (
        _exact_loop(response, config.exact_loop) or _near_loop(sentences, config.near_loop),
        _thought(response, sentences, config) if ended and verdict == NO_ANSWER else None,
        _over_reflection(sentences, config.reflection),
        truncation,
    )
    return tuple(finding for finding in found if finding)


def primary(findings: Iterable[Finding]) -> ErrorClass | None:
    """The one class that stands for a response, the first of `PRIMARY`; truncation is none."""
    names = {finding.name for finding in findings}
    return next((name for name in PRIMARY if name in names), None)


def classes_of_chain(text: str, *, config: ErrorClassesConfig) -> tuple[ErrorClass, ...]:
    """The error classes of a chain to learn from, by its text alone.

    How it finished is not known, and it has an answer where something stands outside its thoughts.
    """
    verdict = CORRECT if final_part(text) else NO_ANSWER
    found = classify(text, finish=None, verdict=verdict, simple=False, config=config)
    return tuple(finding.name for finding in found)


def _exact_loop(response: str, config: ExactLoopConfig) -> Finding | None:
    run = longest_run(
        codes(response),
        repeats=config.repeats,
        length=config.characters,
        max_period=config.max_period,
    )
    if run is None:
        return None
    block = response[run.start : run.start + min(run.period, EXCERPT)]
    return Finding(
        name="content_repetition",
        start=run.start,
        period=run.period,
        evidence=f"{run.repeats:.1f} times {block!a}",
    )


def _near_loop(sentences: Sequence[Sentence], config: NearLoopConfig) -> Finding | None:
    runs = near_runs(
        forms_of(sentences),
        agreement=config.agreement,
        compared=config.compared,
        max_period=config.max_period,
    )
    loops = [
        run
        for run in runs
        if run.repeats >= config.repeats
        and run.length >= (config.last_sentences if run.is_last else config.sentences)
    ]
    if not loops:
        return None
    run = max(loops, key=lambda run: (run.length, -run.period))
    start, last = (sentences[i].start for i in (run.start, run.start + run.length - 1))
    return Finding(
        name="content_repetition",
        start=start,
        period=max(1, round((last - start) * run.period / (run.length - 1))),
        evidence=f"{run.length} sentences, {run.agreement:.0%} nearly as {run.period} before",
    )


def _over_reflection(sentences: Sequence[Sentence], config: ReflectionConfig) -> Finding | None:
    """Too many openers for the sentences, or too many in a row without a result between them."""
    opener = _pattern(config.openers)
    opens = [opener.match(sentence.text) is not None for sentence in sentences]
    count = sum(opens)
    if not count:
        return None
    first, run = _longest_barren_run(sentences, opens)
    if count >= config.least and 100 * count >= config.per_100 * len(sentences):
        first = opens.index(True)
    elif run < config.run:
        return None
    return Finding(
        name="over_reflection",
        start=sentences[first].start,
        evidence=f"{count} of {len(sentences)} sentences reflect, {run} in a row find nothing new",
    )


def _longest_barren_run(sentences: Sequence[Sentence], opens: Sequence[bool]) -> tuple[int, int]:
    """(its first sentence, its openers) of the longest run of thoughts without a new result.

    A thought goes from an opener to before the next one. A result is new where it did not stand in
    the response before.
    """
    said: set[str] = set()
    seen: set[str] = set()
    best = first = run = longest = 0
    is_barren = False
    for i, (sentence, is_opener) in enumerate(zip(sentences, opens, strict=True)):
        if is_opener:
            run, first = (run + 1, first) if is_barren else (0, i)
            if run > longest:
                best, longest = first, run
            is_barren = True
        if sentence.text not in said:  # what was said in the same words before has nothing new
            said.add(sentence.text)
            results = {result.replace(" ", "") for result in RESULT.findall(sentence.text)}
            is_barren = is_barren and results <= seen
            seen |= results
    if is_barren and run + 1 > longest:
        return first, run + 1
    return best, longest


def _thought(
    response: str, sentences: Sequence[Sentence], config: ErrorClassesConfig
) -> Finding | None:
    """An instruction failure where a response without an answer holds a long thought.

    A thought is known by its tags, or by how its sentences begin.
    """
    instruction = config.instruction
    if len(response) < instruction.characters:
        return None
    places = [place for tag, _ in THOUGHTS if (place := response.find(tag)) >= 0]
    opener = _pattern(instruction.openers + config.reflection.openers)
    thinking = (sentence.start for sentence in sentences if opener.match(sentence.text))
    said = list(islice(thinking, instruction.sentences))
    if len(said) == instruction.sentences:
        places += said[:1]
    if not places:
        return None
    evidence = f"{len(response)} characters with thoughts, and no answer"
    return Finding(name="instruction_failure", start=min(places), evidence=evidence)


def _truncation(response: str, finish: str | None) -> Finding | None:
    if finish == CUT:
        return Finding(name="truncation", start=len(response), evidence="finish length")
    left = [tag for tag, end in THOUGHTS if response.rfind(tag) > response.rfind(end)]
    if finish is None and left:
        return Finding(name="truncation", start=len(response), evidence=f"{left[0]} is left open")
    return None


@lru_cache
def _pattern(openers: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the openers as whole words, in capitals or not, at a sentence's start."""
    words = "|".join(map(re.escape, openers)).replace("'", "['’]")
    return re.compile(f"(?:{words})(?![A-Za-z])", re.IGNORECASE)
