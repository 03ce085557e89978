from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Completion, Request, Response
from marco.engines.scripted import ScriptedEngine
from marco.search.pattern import ANSWER, Kinds, NodeKind, Pattern

from .searches import (
    PLAIN,
    answers,
    check,
    drawn,
    grown,
    is_answer,
    of_kind,
    pattern_of,
    problem,
    prompt_text,
    search,
    settings,
    starter,
)

# Every pattern ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wave", [1, 4])
@pytest.mark.parametrize("count", ["distinct", "visits"])
def test_every_pattern_runs_and_keeps_its_matrix(
    pattern: Pattern, kinds: Kinds, count: str, wave: int
) -> None:
    config = settings(count=count, wave=wave, enough_correct=9, enough_wrong=9)
    trees = search(drawn(0), starter(pattern, kinds, config), [problem(i) for i in range(8)])
    for tree in trees:
        check(tree, pattern, config)
    assert {node.kind for tree in trees for node in tree.nodes} == {"prompt", *pattern.kinds}
    assert {node.verdict for tree in trees for node in tree.nodes} >= {"correct", "wrong"}


@pytest.mark.parametrize("wave", [1, 4])
@pytest.mark.parametrize("count", ["distinct", "visits"])
def test_trees_do_not_depend_on_what_ran_beside_them(
    pattern: Pattern, kinds: Kinds, count: str, wave: int
) -> None:
    start = starter(pattern, kinds, settings(count=count, wave=wave))
    problems = [problem(i) for i in range(6)]

    def texts(**options: Any) -> list[str]:
        return [tree.to_json() for tree in search(drawn(3), start, problems, **options)]

    expected = texts(max_in_flight=1)
    assert texts(max_in_flight=8) == expected
    assert texts(max_in_flight=8, last_first=True) == expected
    assert texts(max_in_flight=3, last_first=True) == expected
    assert [search(drawn(3), start, [p])[0].to_json() for p in problems] == expected


def test_the_seed_decides(pattern: Pattern, kinds: Kinds) -> None:
    trees = [
        search(drawn(0), starter(pattern, kinds, settings(), seed=seed))[0].nodes
        for seed in (0, 0, 1)
    ]
    assert trees[0] == trees[1] != trees[2]


@examples(max_examples=60, deadline=None)
@given(
    script=st.integers(0, 10**6),
    name=st.sampled_from("abcd"),
    changes=st.fixed_dictionaries(
        {
            "count": st.sampled_from(["distinct", "visits"]),
            "wave": st.integers(1, 7),
            "give_up_rollouts": st.integers(1, 30),
            "max_rollouts": st.integers(1, 30),
            "max_nodes": st.integers(1, 60),
            "max_depth": st.integers(1, 9),
            "max_tokens": st.integers(5, 300),
            "max_backtracks": st.integers(0, 5),
        }
    ),
)
def test_any_script_ends_in_a_consistent_tree_within_its_budgets(
    patterns: dict[str, Pattern], kinds: Kinds, script: int, name: str, changes: dict[str, Any]
) -> None:
    config = settings(**changes)
    [tree] = search(drawn(script), starter(patterns[name], kinds, config))
    check(tree, patterns[name], config)
    mending = patterns[name].on_wrong.keys() - {"thinking"}
    assert sum(n.kind in mending for n in tree.nodes) <= config.max_backtracks


# Waves ------------------------------------------------------------------------------------------

TWO_WAYS = {"prompt": {"thinking": 2}, "thinking": {"reflection": 2}, "reflection": {ANSWER: 1}}


def _asked_together(wave: int) -> list[list[str]]:
    """The kinds that each step of a search asks for, from one thought to the next."""
    start = starter(pattern_of(TWO_WAYS), PLAIN, settings(wave=wave, enough_correct=9))
    running = start(problem())
    steps, requests = [], next(running)
    while True:
        steps.append([request.kind for request in requests for _ in range(request.n)])
        responses = [
            Response(
                key=request.key,
                completions=tuple(
                    Completion(text=f" {request.key}{i}", tokens=1, finish="stop")
                    for i in range(request.n)
                ),
            )
            for request in requests
        ]
        try:
            requests = running.send(responses)
        except StopIteration:
            return steps


def test_a_wave_asks_for_the_children_of_several_leaves_at_once() -> None:
    """By hand: nothing can be asked for beside the root's children. Then the first rollout goes on
    down below one thought, the second expands the other thought, which nobody has visited, and the
    third writes what is left below the first: the second thought waits for its children.
    """
    assert _asked_together(1) == [
        ["thinking"] * 2, ["reflection"], [ANSWER], ["reflection"] * 2, [ANSWER], [ANSWER],
        ["reflection"], [ANSWER],
    ]  # fmt: skip
    assert _asked_together(3) == [["thinking"] * 2, ["reflection"] * 4, [ANSWER] * 3, [ANSWER]]


@pytest.mark.parametrize("wave", [1, 5])
def test_a_tree_without_a_right_chain_is_given_up_and_one_with_is_not(wave: int) -> None:
    many: dict[str, Any] = {"prompt": {"thinking": 20}, "thinking": {ANSWER: 1}}
    rules: dict[str, Any] = {"wave": wave, "give_up_rollouts": 6, "enough_wrong": 9}
    hopeless = grown(lambda r, i: f" {r.key}/{i}", many, **rules)
    assert hopeless.status == "unsolved"
    assert 6 <= hopeless.usage["rollouts"] < 6 + wave  # those under way go on to their end

    answered: list[str] = []

    def first_is_right(request: Request, sample: int) -> str:
        answered.extend([request.key] * is_answer(request))
        return " 1" if len(answered) == 1 else f" {request.key}/{sample}"

    assert grown(first_is_right, many, **rules).usage["rollouts"] == 20


# Statuses and stopping rules --------------------------------------------------------------------

FOUR = {"prompt": {ANSWER: 4}}


@pytest.mark.parametrize(
    ("texts", "status"),
    [
        (("1", "1.0", "2", "3"), "solved"),
        (("1", "1.0", "2", "who knows"), "solved"),
        (("1", "1.0", "1.00", "$1"), "too_easy"),
        (("1", "2", "3", "4"), "unsolved"),
        (("2", "3", "4", "5"), "unsolved"),
        (("1", "1", "1", "2"), "unsolved"),  # one right chain, three times
        (("?", "??", "???", "????"), "unsolved"),
    ],
)
def test_statuses(texts: tuple[str, ...], status: str) -> None:
    assert grown(answers(*texts), FOUR).status == status


ENDLESS = {"prompt": {"thinking": 1}, "thinking": {"thinking": 2, ANSWER: 1}}


def wrong_and_new(request: Request, sample: int) -> Completion:
    """Wrong answers, and thoughts of which no two are alike; two tokens each."""
    return Completion(text=f" {len(request.key)}{request.key}-{sample} 2", tokens=2, finish="stop")


@pytest.mark.parametrize(
    "budget", [{"max_rollouts": 12}, {"max_nodes": 20}, {"max_tokens": 31}, {"max_nodes": 1}]
)
def test_a_spent_budget_ends_the_search(budget: dict[str, int]) -> None:
    tree = grown(wrong_and_new, ENDLESS, **{"max_depth": 50, "max_nodes": 10**6, **budget})
    assert tree.status == "budget"
    spent = {
        "max_rollouts": tree.usage["rollouts"],
        "max_nodes": len(tree.nodes),
        "max_tokens": tree.usage["completion_tokens"] + 4,  # less than a node is left
    }
    name, limit = next(iter(budget.items()))
    assert spent[name] >= limit


def test_max_depth_is_reached_and_held() -> None:
    tree = grown(wrong_and_new, ENDLESS, max_depth=4)
    assert max(len(tree.path(node.id)) for node in tree.nodes) == 4
    assert {tree.nodes[-1].kind} == {ANSWER}
    assert tree.status == "unsolved"  # searched through


def test_a_depth_without_a_way_to_an_answer_asks_for_nothing() -> None:
    tree = grown(wrong_and_new, ENDLESS, max_depth=1)
    assert (len(tree.nodes), tree.status, tree.usage["requests"]) == (1, "unsolved", 0)


def test_no_thought_is_written_that_cannot_reach_an_answer_in_time() -> None:
    """At depth 2 of 3 only the answer has room; a reflection would need one node more."""
    transitions = {"prompt": {"thinking": 1}, "thinking": {ANSWER: 1}, "reflection": {ANSWER: 1}}
    at_three = grown(answers("2"), transitions, on_wrong={"reflection": 1}, max_depth=3)
    assert of_kind(at_three, "reflection") != []
    at_two = grown(answers("2"), transitions, on_wrong={"reflection": 1}, max_depth=2)
    assert of_kind(at_two, "reflection") == []


def test_a_solved_tree_goes_on_until_it_has_enough_or_was_searched_long_enough() -> None:
    few = {"enough_correct": 2, "enough_wrong": 1, "accept_rollouts": 10}
    texts = ("1", "1.0", "2", "3")
    twice = {"prompt": {"thinking": 2}, "thinking": FOUR["prompt"]}
    tree = grown(answers(*texts), twice, **few)
    assert (
        tree.status == "solved" and [n.verdict for n in of_kind(tree, ANSWER)].count("correct") == 2
    )
    tree = grown(drawn(1), ENDLESS, enough_correct=50, enough_wrong=1, max_depth=50)
    assert tree.status == "solved" and tree.usage["rollouts"] >= 10


def test_settings_that_contradict_each_other_are_refused() -> None:
    for changes in (
        {"accept_correct": 5},
        {"node_tokens": 1001},
        {"count": "twice"},
        {"max_node": 5},
    ):
        with pytest.raises(ValidationError):
            settings(**changes)


# What counts ------------------------------------------------------------------------------------

ONE_CHAIN = {"prompt": {"thinking": 1}, "thinking": {ANSWER: 1}}


def test_distinct_counts_a_leaf_once_and_the_released_counting_does_not() -> None:
    """The only chain there is, and it is right: four 'successes' of one chain, or one."""
    distinct = grown(answers("1"), ONE_CHAIN)
    assert (distinct.status, distinct.usage["rollouts"], len(distinct.nodes)) == ("unsolved", 1, 3)
    released = grown(answers("1"), ONE_CHAIN, count="visits", enough_correct=4, enough_wrong=0)
    assert (released.status, released.usage["rollouts"], len(released.nodes)) == ("solved", 4, 3)
    assert [node.visits for node in released.nodes] == [4, 4, 4]
    assert [node.value for node in released.nodes] == [4, 4, 4]
    assert released.usage["requests"] == distinct.usage["requests"] == 2


def test_values_by_hand() -> None:
    """A thought with two right answers and a wrong one, and a thought with three that fail."""
    transitions = {"prompt": {"thinking": 2}, "thinking": {ANSWER: 3}}

    def script(request: Request, sample: int) -> str:
        if not is_answer(request):
            return (" good", " bad")[sample]
        place = int(request.key.rpartition("/")[2]) + sample  # the first of the request, and on
        texts = ("1", "1.0", "2") if "good" in prompt_text(request) else ("3", "4", "?")
        return " " + texts[place]

    tree = grown(script, transitions, enough_correct=9, enough_wrong=9)
    figures = {n.text.split("\n")[1]: (n.visits, n.value) for n in tree.nodes[1:]}
    assert figures == {
        "good": (3, 2),
        "bad": (3, 0),
        "1": (1, 1),
        "1.0": (1, 1),
        "2": (1, 0),
        "3": (1, 0),
        "4": (1, 0),
        "?": (1, 0),
    }
    assert (tree.nodes[0].visits, tree.nodes[0].value, tree.status) == (6, 2, "solved")
    assert Counter(n.verdict for n in tree.nodes) == {
        None: 3,
        "correct": 2,
        "wrong": 3,
        "no_answer": 1,
    }


def test_duplicates_are_merged_and_counted() -> None:
    tree = grown(answers("1", " 1 \n", "2", "1"), FOUR)
    assert [(n.text, n.copies) for n in tree.nodes[1:]] == [
        ("<answer>\n1\n</answer>\n", 3),
        ("<answer>\n2\n</answer>\n", 1),
    ]
    assert tree.usage["rollouts"] == 2


def test_a_chain_without_an_answer_is_not_wrong() -> None:
    """No answer, an overlong node and a node inside a node: nothing is mended after them."""
    cases = (
        " who knows",
        Completion(text=" 1", tokens=5, finish="length"),
        Completion(text=" <thinking> 1", tokens=2, finish="stop"),
    )
    for completion in cases:
        tree = grown(
            lambda request, sample, c=completion: c if is_answer(request) else " so",
            ONE_CHAIN | {"reflection": {ANSWER: 1}},
            on_wrong={"reflection": 1},
        )
        assert [n.verdict for n in tree.nodes] == [None, None, "no_answer"]
        assert tree.usage["rollouts"] == 1


def test_a_prefix_that_closes_its_tag_is_not_generated() -> None:
    kinds = PLAIN | {"thinking": NodeKind(tag="thinking", prefixes=["I see.</thinking>"])}
    config = settings()
    pattern = pattern_of({"prompt": {"thinking": 2}, "thinking": {ANSWER: 1}})
    engine_sees: list[Request] = []

    def script(request: Request, sample: int) -> str:
        engine_sees.append(request)
        return " 1"

    [tree] = search(script, starter(pattern, kinds, config))
    check(tree, pattern, config)
    assert [(n.text, n.model, n.copies) for n in of_kind(tree, "thinking")] == [
        ("<thinking>\nI see.\n</thinking>\n", None, 2)
    ]
    assert all(is_answer(request) for request in engine_sees)


def test_a_request_continues_the_path_inside_the_next_tag() -> None:
    seen: dict[str, str] = {}

    def script(request: Request, sample: int) -> str:
        seen[request.stop[0]] = prompt_text(request)
        return " 1"

    tree = grown(script, ONE_CHAIN)
    question = problem().problem + "\n"
    assert seen["</thinking>"] == question + "<thinking>\n"
    assert seen["</answer>"] == question + "<thinking>\n1\n</thinking>\n<answer>\n"
    assert tree.nodes[0].text == problem().problem
    assert tree.usage == {
        "prompt_tokens": sum(map(len, seen.values())),
        "completion_tokens": 2,
        "requests": 2,
        "rollouts": 1,
    }


def test_the_ids_of_a_path_are_a_prefix_of_its_childrens(
    patterns: dict[str, Pattern], kinds: Kinds, embedded_folder: Path
) -> None:
    """With a real tokenizer, and texts that would be joined to their neighbours in one encoding."""
    encode = ChatTokenizer.load(embedded_folder).encode
    asked: dict[str, list[Request]] = {}

    def script(request: Request, sample: int) -> str:
        asked.setdefault(request.key.split("/")[1], []).append(request)
        return (" 12", " so\n\n", "<", " the>", "\n")[(len(request.key) + sample) % 5]

    start = starter(patterns["a"], kinds, settings(max_tokens=9999), encode=encode)
    search(script, start, [problem(i) for i in range(3)])
    of_path = {
        (request.problem, place): request.prompt_ids[
            : -len(encode(kinds[request.kind].opening + kinds[request.kind].prefixes[0]))
        ]
        for place, requests in asked.items()
        for request in requests
    }
    parents = [
        (name, place) for name, place in of_path if (name, place[: place.rfind(".")]) in of_path
    ]
    assert len(parents) > 20
    for name, place in parents:
        above = of_path[name, place[: place.rfind(".")]]
        assert of_path[name, place][: len(above)] == above


# The scheduler ----------------------------------------------------------------------------------


def test_as_many_trees_are_open_as_the_engine_has_places(
    patterns: dict[str, Pattern], kinds: Kinds
) -> None:
    """With one place the problems are searched one after the other."""
    order: list[str] = []

    def script(request: Request, sample: int) -> Any:
        order.append(request.key.split("/")[0])
        return drawn(0)(request, sample)

    start = starter(patterns["a"], kinds, settings())
    search(script, start, [problem(i) for i in range(3)], max_in_flight=1)
    assert order == sorted(order)


def test_what_nobody_scripted_stops_the_search() -> None:
    with pytest.raises(KeyError, match="nobody scripted p0/0/thinking.0/0"):
        grown(lambda request, sample: None, ONE_CHAIN)
    assert ScriptedEngine(lambda request, sample: None).honours_seeds
