from typing import Any

import pytest
from pydantic import ValidationError

from marco.search.pattern import ANSWER, NodeKind, Pattern


def make(
    transitions: dict[str, Any],
    *,
    max_run: dict[str, int] | None = None,
    on_wrong: dict[str, int] | None = None,
) -> Pattern:
    return Pattern(
        name="test", transitions=transitions, max_run=max_run or {}, on_wrong=on_wrong or {}
    )


@pytest.mark.parametrize(
    ("transitions", "more", "message"),
    [
        ({"prompt": {"thinkin": 1, "answer": 1}}, {}, "dead end.*`thinkin`"),
        ({"prompt": {"thinking": 1}, "thinking": {"thinking": 1}}, {}, "no way from `prompt`"),
        ({"prompt": {"a": 1, "b": 1}, "a": {"answer": 1}, "b": {"b": 1}}, {}, "dead end.*`b`"),
        ({"prompt": {"a": 1, "b": 1}, "a": {"answer": 1}, "b": {}}, {}, "dead end.*`b`"),
        ({"prompt": {"answer": 1}, "alone": {"answer": 1}}, {}, "nothing leads to `alone`"),
        ({"thinking": {"answer": 1}}, {}, "no row for `prompt`"),
        ({"prompt": {}}, {}, "no row for `prompt`"),
        ({"prompt": {"answer": 1}, "answer": {"prompt": 1}}, {}, "`answer` ends a chain"),
        ({"prompt": {"a": 1}, "a": {"prompt": 1, "answer": 1}}, {}, "`prompt` starts a chain"),
        ({"prompt": {"answer": 1}}, {"max_run": {"thinking": 2}}, "max_run names `thinking`"),
        ({"prompt": {"answer": 1}}, {"on_wrong": {"mend": 1}}, "dead end.*`mend`"),
        ({"prompt": {"answer": 0}}, {}, "greater than 0"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_with_the_kinds_name(
    transitions: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make(transitions, **more)


def test_every_pattern_that_ships_is_valid(pattern: Pattern, kinds: dict[str, NodeKind]) -> None:
    assert pattern.kinds <= kinds.keys()
    assert pattern.to_answer.keys() == {"prompt", ANSWER, *pattern.kinds}


def test_to_answer_counts_the_fewest_nodes(patterns: dict[str, Pattern]) -> None:
    assert patterns["a"].to_answer == {
        "prompt": 4,
        "sub_task": 3,
        "reflection": 3,
        "thinking": 2,
        "answer": 1,
    }
    assert patterns["c"].to_answer["double_check"] == 3


PATTERN = make(
    {"prompt": {"t": 2}, "t": {"t": 1, "answer": 1}, "r": {"t": 1}},
    max_run={"t": 2},
    on_wrong={"r": 1, "t": 3},
)


@pytest.mark.parametrize(
    ("path", "wrong_below", "left", "row"),
    [
        ("prompt", False, 9, {"t": 2}),
        ("prompt t", False, 9, {"t": 1, "answer": 1}),
        ("prompt t t", False, 9, {"answer": 1}),  # max_run
        ("prompt t r t", False, 9, {"t": 1, "answer": 1}),  # the run starts anew
        ("prompt t", True, 9, {"t": 3, "answer": 1, "r": 1}),
        ("prompt t t", True, 9, {"t": 3, "answer": 1, "r": 1}),  # mending goes past max_run
        ("prompt t t", True, 2, {"t": 3, "answer": 1}),  # r, t, answer would be three
        ("prompt t", True, 1, {"answer": 1}),
        ("prompt t", True, 0, {}),
        ("prompt", False, 1, {}),
        ("prompt t answer", False, 9, {}),
    ],
)
def test_row(path: str, wrong_below: bool, left: int, row: dict[str, int]) -> None:
    assert PATTERN.row(path.split(), wrong_below=wrong_below, left=left) == row


def test_on_wrong_never_takes_room_away() -> None:
    pattern = make({"prompt": {"t": 3}, "t": {"t": 3, "answer": 1}}, on_wrong={"t": 1})
    assert pattern.row(["prompt", "t"], wrong_below=True, left=9)["t"] == 3


@pytest.mark.parametrize(
    ("prefix", "generated", "text"),
    [
        ("", " 5 \n\n", "<my-tag>\n5\n</my-tag>\n"),
        ("So:", " 5", "<my-tag>\nSo: 5\n</my-tag>\n"),
        ("All said.\n</my-tag>\n", "", "<my-tag>\nAll said.\n</my-tag>\n"),
        ("", "", "<my-tag>\n\n</my-tag>\n"),
    ],
)
def test_a_node_is_written_inside_its_tag(prefix: str, generated: str, text: str) -> None:
    assert NodeKind(tag="my-tag", prefixes=[prefix]).write(prefix, generated) == text


@pytest.mark.parametrize("tag", ["", "A", "a b", "a>", "<a"])
def test_a_tag_that_would_break_the_markup_is_refused(tag: str) -> None:
    with pytest.raises(ValidationError):
        NodeKind(tag=tag, prefixes=[""])
