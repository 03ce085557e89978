"""Error backtracking: what a wrong answer adds to the thought before it."""

from collections import Counter

import pytest

from marco.engines.protocol import Request
from marco.search.pattern import ANSWER

from .searches import answers, grown, is_answer, of_kind, prompt_text

ONE_CHAIN = {"prompt": {"thinking": 1}, "thinking": {ANSWER: 1}}
MENDED = ONE_CHAIN | {"reflection": {ANSWER: 1}}


def right_after_reflection(request: Request, sample: int) -> str:
    return " 1" if "<reflection>" in prompt_text(request) or not is_answer(request) else " 2"


def test_a_wrong_answer_is_taken_back_and_mended() -> None:
    """The only chain is closed by its wrong answer; the mending thought opens it again."""
    tree = grown(
        right_after_reflection,
        MENDED,
        on_wrong={"reflection": 1},
        enough_correct=1,
        accept_correct=1,
        enough_wrong=1,
    )
    assert [(n.kind, n.parent, n.verdict) for n in tree.nodes] == [
        ("prompt", None, None),
        ("thinking", 0, None),
        ("answer", 1, "wrong"),
        ("reflection", 1, None),
        ("answer", 3, "correct"),
    ]
    assert [n.visits for n in tree.nodes] == [2, 2, 1, 1, 1]
    assert (tree.status, tree.usage["rollouts"]) == ("solved", 2)


def test_what_backtracking_opens_again_stays_open_until_it_is_searched_through() -> None:
    """A rollout writes one answer of the reflection's two; selection comes back for the other."""
    transitions = MENDED | {"reflection": {ANSWER: 2}}

    def script(request: Request, sample: int) -> str:
        place = int(request.key.rpartition("/")[2]) + sample
        return f" {place + 2}" if is_answer(request) else " so"

    tree = grown(script, transitions, on_wrong={"reflection": 1}, max_backtracks=1)
    [reflection] = of_kind(tree, "reflection")
    assert [n.text.split("\n")[1] for n in tree.nodes if n.parent == reflection.id] == ["2", "3"]
    assert (tree.usage["rollouts"], tree.status) == (3, "unsolved")


def test_a_wrong_answer_to_the_prompt_itself_is_mended_below_the_prompt() -> None:
    transitions = {"prompt": {ANSWER: 1}, "reflection": {ANSWER: 1}}
    tree = grown(right_after_reflection, transitions, on_wrong={"reflection": 1})
    assert [(n.kind, n.parent) for n in tree.nodes[1:]] == [
        ("answer", 0),
        ("reflection", 0),
        ("answer", 2),
    ]


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_backtracking_keeps_its_cap(cap: int) -> None:
    """Every answer is wrong, so each reflection is reflected upon, until the cap."""
    tree = grown(answers("2"), MENDED, on_wrong={"reflection": 1}, max_backtracks=cap, max_depth=50)
    assert len(of_kind(tree, "reflection")) == cap
    assert tree.status == "unsolved"


def test_a_thought_is_mended_once_however_many_wrong_answers_it_has() -> None:
    transitions = {"prompt": {"thinking": 1}, "thinking": {ANSWER: 3}, "reflection": {ANSWER: 1}}
    tree = grown(
        lambda request, sample: f" {sample + 2}" if is_answer(request) else " so",
        transitions,
        on_wrong={"reflection": 1},
        max_backtracks=50,
        max_depth=4,
    )
    below = Counter(n.parent for n in of_kind(tree, "reflection"))
    assert set(below.values()) == {1}
    assert all(n.copies == 1 for n in of_kind(tree, "reflection"))


def test_a_right_answer_is_not_taken_back() -> None:
    tree = grown(answers("1"), MENDED, on_wrong={"reflection": 1})
    assert of_kind(tree, "reflection") == []


def test_a_spent_budget_ends_backtracking_too() -> None:
    many = {"max_backtracks": 50, "max_depth": 50}
    tree = grown(answers("2"), MENDED, on_wrong={"reflection": 1}, max_rollouts=10, **many)
    assert tree.usage["rollouts"] == 10
