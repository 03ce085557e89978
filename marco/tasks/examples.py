"""Worked examples for the prompt of the search: thoughts by node kind, laid out for a pattern."""

from collections.abc import Sequence
from dataclasses import dataclass

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
        messages.append({"role": "user", "content": example.problem})
        messages.append({"role": "assistant", "content": "".join(nodes)})
    return [*messages, {"role": "user", "content": problem}]


def lay_out(example: Example, pattern: Pattern) -> list[tuple[str, str]]:
    """(kind, text) of a way through the pattern on which the example has a text at every step."""
    mending = next((k for k in pattern.on_wrong if getattr(example, k, "")), None)
    texts = {
        "sub_task": [example.sub_task],
        "hypothesis": [example.hypothesis],
        "thinking": list(example.steps),
        "double_check": [example.double_check],
    }
    way: list[tuple[str, str]] = []
    kind = PROMPT
    while kind != ANSWER:
        row = pattern.transitions[kind]
        if kind == "thinking" and len(texts["thinking"]) == 0:
            row = {ANSWER: 1}
        kind = next((k for k in row if texts.get(k)), ANSWER)
        way.append((kind, texts[kind].pop(0) if kind != ANSWER else example.answer))
    if mending and example.mistaken:
        first = next(i for i, (kind, _) in enumerate(way) if kind == "thinking")
        erring = [("thinking", step) for step in example.mistaken]
        way[first:first] = [*erring, (mending, getattr(example, mending))]
    return way
