"""Plain sampling by hand: how many chains a budget pays for, and what is made of them."""

import json
from collections.abc import Sequence

import pytest

from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.search.mcts import Writer
from marco.search.plain import CHAIN, sample_chains
from marco.search.settings import SearchConfig
from marco.search.tree import Tree
from marco.tasks.problem import Problem
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

from .searches import SETTINGS, encode, pattern_of, problem, settings


def verify(chain: str, _: Problem) -> Verdict:
    return Verdict(CORRECT if "1" in chain else WRONG, chain[0], "")


def sampled(said: Sequence[Completion], tokens: int, **changes: int) -> tuple[Tree, list[Request]]:
    """The tree of the completions, and what was asked for them."""
    walk = sample_chains(
        problem(),
        task="test",
        verify=verify,
        closing="</answer>",
        pattern=pattern_of({"prompt": {"answer": 1}}),
        settings=settings(wave=4, **changes),
        writer=Writer(
            model="main",
            prompt_ids=lambda problem: (1, 2, 3),
            encode=encode,
            sampling=Sampling(temperature=0.7, top_p=1.0, max_tokens=5),
        ),
        seed=0,
        tokens=tokens,
    )
    left, asked = iter(said), [next(walk)[0]]
    while True:
        own = tuple(next(left) for _ in range(asked[-1].n))
        try:
            asked += walk.send([Response(key=asked[-1].key, completions=own)])
        except StopIteration as end:
            return end.value, asked


def chain(text: str, tokens: int = 10, finish: str = "stop") -> Completion:
    return Completion(text=text, tokens=tokens, finish=finish)


@pytest.mark.parametrize(
    ("tokens", "counts"),
    [
        (5, [1]),  # at least one chain, though it takes more
        (24, [1, 1]),  # 14 more pay for 1.4 chains of 10
        (30, [1, 2]),
        (100, [1, 4, 4, 1]),  # four at once at most
    ],
)
def test_chains_are_sampled_as_the_budget_pays_for(tokens: int, counts: list[int]) -> None:
    tree, asked = sampled([chain(f"{i}") for i in range(20)], tokens)
    assert [request.n for request in asked] == counts
    assert tree.usage == {
        "prompt_tokens": 3 * len(counts),
        "completion_tokens": 10 * sum(counts),
        "requests": len(counts),
        "rollouts": sum(counts),
    }
    assert len({request.key for request in asked}) == len(asked)
    assert {(r.stop, r.kind, r.sampling.max_tokens) for r in asked} == {
        (("</answer>",), CHAIN, 5 * SETTINGS["max_depth"])
    }


def test_each_distinct_chain_is_a_node_and_copies_are_counted() -> None:
    tree, _ = sampled([chain(" 1"), chain("2"), chain("1"), chain("1 3", finish="length")], 40)
    root, *chains = tree.nodes
    assert [(n.id, n.parent, n.text) for n in chains] == [
        (1, 0, "1\n</answer>\n"),
        (2, 0, "2\n</answer>\n"),
        (3, 0, "1 3\n</answer>\n"),
    ]
    assert [(n.verdict, n.copies, n.visits, n.value) for n in chains] == [
        (CORRECT, 2, 2, 2.0),
        (WRONG, 1, 1, 0.0),
        (NO_ANSWER, 1, 1, 0.0),
    ]
    assert (root.text, root.visits, root.value) == (tree.problem, 4, 2.0)
    assert chains[0].tokens == len("1\n</answer>\n") and tree.models == {CHAIN: "main"}
    assert tree.status == "budget"  # one distinct correct chain, of two that are asked for
    assert Tree.from_json(json.loads(tree.to_json())) == tree


def test_trees_are_solved_as_a_searchs_are() -> None:
    right = [chain("1"), chain("11")]
    assert sampled([*right, chain("2")], 30)[0].status == "solved"
    assert sampled(right, 20)[0].status == "too_easy"
    assert sampled(right, 20, enough_wrong=0)[0].status == "solved"


def test_a_dry_run_is_of_the_search_that_it_is_compared_with() -> None:
    with pytest.raises(ValueError, match="search=distinct"):
        SearchConfig(**SETTINGS | {"count": "plain", "dry_run": True})
