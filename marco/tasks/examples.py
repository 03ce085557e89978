"""Worked examples for the prompt of the search: thoughts by node kind, laid out for a pattern."""

from collections.abc import Sequence
from dataclasses import dataclass

from marco.search.pattern import ANSWER, PROMPT, Kinds, Pattern

AGAIN = "thinking_again"  # the thought that follows a mending thought, the first having erred


@dataclass(frozen=True, kw_only=True)
class Example:
    """A problem and what is thought about it; `thoughts` maps node kinds to texts without prefix."""

    problem: str
    thoughts: dict[str, str]


def chat(
    problem: str, examples: Sequence[Example], *, kinds: Kinds, pattern: Pattern
) -> list[dict[str, str]]:
    """The messages of the search: examples as finished turns in the pattern's own kinds."""
    messages = []
    for example in examples:
        messages.append({"role": "user", "content": example.problem})
        content = "".join(_nodes(example, kinds, pattern))
        messages.append({"role": "assistant", "content": content})
    return [*messages, {"role": "user", "content": problem}]


def _nodes(example: Example, kinds: Kinds, pattern: Pattern) -> list[str]:
    layout = _layout(example, pattern)
    written = []
    for kind in layout:
        prefix = kinds["thinking" if kind == AGAIN else kind].prefixes[0]
        text = example.thoughts[kind]
        written.append(
            kinds["thinking" if kind == AGAIN else kind].write(
                prefix, f" {text}" if prefix else text
            )
        )
    return written


def _layout(example: Example, pattern: Pattern) -> list[str]:
    """A way through the pattern for which the example has a text at every step."""
    erred = AGAIN in example.thoughts
    mending = next(iter(pattern.on_wrong), None)
    layout: list[str] = []
    kind = PROMPT
    while kind != ANSWER:
        row = [k for k in pattern.transitions[kind] if k in example.thoughts and k not in layout]
        kind = next((k for k in row if k != ANSWER), ANSWER)
        layout.append(kind)
    if erred and mending and mending in example.thoughts:
        steps = [] if mending == "thinking" else [mending]
        layout[layout.index("thinking") + 1 :] = [*steps, AGAIN, ANSWER]
    elif erred:
        layout = [AGAIN if kind == "thinking" else kind for kind in layout]
    return layout
