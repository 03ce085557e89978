import re
from itertools import groupby, pairwise

import pytest

from marco.errors import UserError
from marco.search.pattern import ANSWER, PROMPT, Kinds, Pattern
from marco.tasks import arithmetic, gsm8k
from marco.tasks.answers import verify_number
from marco.tasks.examples import Example, chat, lay_out

ALL = [*arithmetic.EXAMPLES["a*b+c"], *arithmetic.EXAMPLES["a*b-c"], *gsm8k.EXAMPLES]


@pytest.mark.parametrize("example", ALL, ids=lambda example: example.problem[:20])
def test_examples_follow_the_pattern(pattern: Pattern, example: Example) -> None:
    way = [kind for kind, _ in lay_out(example, pattern)]
    assert way[-1] == ANSWER
    for before, after in pairwise([PROMPT, *way]):
        answerable = ANSWER in pattern.transitions.get(before, {})
        mends = after in pattern.on_wrong and answerable
        assert after in pattern.transitions[before] or mends
    for kind, run in groupby(way):
        assert len(list(run)) <= pattern.max_run.get(kind, 99)


def test_mistakes_are_shown_where_the_pattern_mends_them(patterns: dict[str, Pattern]) -> None:
    example = ALL[0]
    ways = {name: [kind for kind, _ in lay_out(example, p)] for name, p in patterns.items()}
    assert ways == {
        "a": ["sub_task", "thinking", "reflection", "thinking", "answer"],
        "b": ["sub_task", "hypothesis", "thinking", "answer"],
        "c": ["sub_task", "thinking", "answer"],  # one step: nothing follows a double check
        "d": ["sub_task", "hypothesis", "thinking", "reclarify", "thinking", "answer"],
    }
    two_steps = [kind for kind, _ in lay_out(gsm8k.EXAMPLES[0], patterns["c"])]
    assert two_steps == ["sub_task", "thinking", "double_check", "thinking", "answer"]


def test_the_chat_shows_finished_turns_in_the_searchs_own_markup(
    pattern: Pattern, kinds: Kinds
) -> None:
    messages = chat("How many?", ALL, kinds=kinds, pattern=pattern)
    assert [m["role"] for m in messages] == ["user", "assistant"] * len(ALL) + ["user"]
    assert messages[-1]["content"] == "How many?"
    for example, shown in zip(ALL, messages[1::2], strict=True):
        text = shown["content"]
        assert verify_number(text, example.answer).verdict == "correct"
        tags = re.findall(r"^<([a-z-]+)>\n.+\n</\1>\n", text, re.MULTILINE)
        assert tags == [kinds[kind].tag for kind, _ in lay_out(example, pattern)]
        assert all(kinds[kind].prefixes[0] in text for kind, _ in lay_out(example, pattern))


def test_an_example_that_does_not_fit_the_pattern_is_an_error() -> None:
    pattern = Pattern(
        name="new",
        transitions={"prompt": {"plan": 1}, "plan": {"answer": 1}},
        max_run={},
        on_wrong={},
    )
    with pytest.raises(UserError, match="no worked example of the task follows pattern new"):
        lay_out(ALL[0], pattern)
