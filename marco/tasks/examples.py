"""Worked examples for the prompt of the search: thoughts by node kind, laid out for a pattern."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marco.errors import UserError
from marco.search.pattern import ANSWER, PROMPT, Kinds, Pattern


@dataclass(frozen=True, kw_only=True)
class Example:
    """A problem and what is thought about it, as texts without prefixes, by node kind.

    `steps` are the thinking nodes. `mistaken` steps come before a mending thought (`reflection`,
    `reclarify`) in patterns that have one, and are left out elsewhere.
    """

    problem: str
    sub_task: str
    hypothesis: str
    steps: tuple[str, ...]
    double_check: str
    answer: str
    mistaken: tuple[str, ...] = ()
    reflection: str = ""
    reclarify: str = ""


def chat(
    problem: str, examples: Sequence[Example], *, kinds: Kinds, pattern: Pattern
) -> list[dict[str, str]]:
    """The messages of the search: the examples as finished turns in the pattern's own kinds."""
    messages = []
    for example in examples:
        nodes = [
            kinds[kind].write(kinds[kind].prefixes[0], f" {text}")
            for kind, text in lay_out(example, pattern)
        ]
        messages += _turn(example, "".join(nodes))
    return [*messages, {"role": "user", "content": problem}]


def plain_chat(examples: Sequence[Example]) -> list[dict[str, str]]:
    """The examples as finished turns without tags: the steps, and the answer at the end."""
    messages = []
    for example in examples:
        messages += _turn(example, " ".join([*example.steps, f"The answer is: {example.answer}"]))
    return messages


def _turn(example: Example, text: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": example.problem},
        {"role": "assistant", "content": text},
    ]


def lay_out(example: Example, pattern: Pattern) -> list[tuple[str, str]]:
    """(kind, text) of a way through the pattern on which the example has a text at every step.

    Of several ways the first in the order of the pattern's rows. Raises UserError if there is none.
    """
    mending = next((k for k in pattern.on_wrong if getattr(example, k, "")), None)
    texts = {
        "sub_task": (example.sub_task,),
        "hypothesis": (example.hypothesis,),
        "thinking": example.steps,
        "double_check": (example.double_check,),
        ANSWER: (example.answer,),
    }
    way = _first_way(pattern, texts, [])
    if way is None:
        raise UserError(
            f"no worked example of the task follows pattern {pattern.name}: take task.shots=0, "
            f"or a pattern of {', '.join(texts)}"
        )
    first = next((i for i, (kind, _) in enumerate(way) if kind == "thinking"), None)
    if mending and example.mistaken and first is not None:
        erring = [("thinking", step) for step in example.mistaken]
        way[first:first] = [*erring, (mending, getattr(example, mending))]
    return way


def _first_way(
    pattern: Pattern, texts: Mapping[str, Sequence[str]], way: list[tuple[str, str]]
) -> list[tuple[str, str]] | None:
    """The way, carried on to an answer; None if no texts are left that lead there."""
    kinds = [kind for kind, _ in way]
    if kinds[-1:] == [ANSWER]:
        return way
    left = sum(map(len, texts.values())) - len(way)
    for kind in pattern.row([PROMPT, *kinds], wrong_below=False, left=left):
        used = kinds.count(kind)
        if used < len(texts.get(kind, ())):
            longer = _first_way(pattern, texts, [*way, (kind, texts[kind][used])])
            if longer is not None:
                return longer
    return None
