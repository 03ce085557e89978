"""Searches without a model: scripts, and a walk over a tree that checks it against its rules."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from marco.driver.scheduler import Scheduler
from marco.engines.protocol import Completion, Request, Sampling
from marco.engines.scripted import ScriptedEngine
from marco.search.mcts import Search, TreeSearch, Writer
from marco.search.pattern import ANSWER, Kinds, NodeKind, Pattern
from marco.search.settings import SearchConfig
from marco.search.tree import Node, Tree
from marco.tasks.answers import verify_number
from marco.tasks.problem import Problem

PLAIN: Kinds = {
    kind: NodeKind(tag=kind, prefixes=[""]) for kind in ("thinking", "reflection", ANSWER)
}
SETTINGS: dict[str, Any] = {
    "name": "test",
    "count": "distinct",
    "c": 1.414,
    "wave": 1,
    "enough_correct": 4,
    "enough_wrong": 4,
    "accept_correct": 2,
    "accept_rollouts": 10,
    "give_up_rollouts": 100,
    "max_rollouts": 100,
    "max_nodes": 100,
    "max_depth": 8,
    "max_tokens": 1000,
    "max_backtracks": 4,
    "node_tokens": 5,
    "dry_run": False,
    "dry_run_problems": 2,
}

Script = Callable[[Request, int], str | Completion | None]


def settings(**changes: Any) -> SearchConfig:
    return SearchConfig(**SETTINGS | changes)


def pattern_of(transitions: dict[str, dict[str, int]], **on_wrong: int) -> Pattern:
    return Pattern(name="test", transitions=transitions, max_run={}, on_wrong=on_wrong)


def problem(number: int = 0) -> Problem:
    return Problem(id=f"p{number}", problem=f"What is 1 + {number} - {number}?", answer="1")


def encode(text: str) -> list[int]:
    return list(text.encode())


def prompt_text(request: Request) -> str:
    return bytes(request.prompt_ids).decode()


def starter(
    pattern: Pattern,
    kinds: Kinds,
    config: SearchConfig,
    *,
    seed: int = 0,
    encode: Callable[[str], Sequence[int]] = encode,
) -> Callable[[Problem], Search]:
    """Starts searches by the model `teacher`, of one token per byte; right is what equals gold."""
    writer = Writer(
        model="teacher",
        prompt_ids=lambda p: tuple(encode(p.problem + "\n")),
        encode=encode,
        sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=config.node_tokens),
    )

    def start(problem: Problem) -> Search:
        return TreeSearch(
            problem,
            task="test",
            verify=lambda chain, p: verify_number(chain, p.answer),
            kinds=kinds,
            pattern=pattern,
            settings=config,
            writers=dict.fromkeys(kinds, writer),
            seed=seed,
        ).run()

    return start


def search(
    script: Script,
    start: Callable[[Problem], Search],
    problems: Sequence[Problem] | None = None,
    **engine_options: Any,
) -> list[Tree]:
    """The trees in the order of their problems."""
    engine = ScriptedEngine(script, **engine_options)
    scheduler = Scheduler(start, {"teacher": engine})
    trees = scheduler.run(enumerate(problems or [problem()]), on_response=lambda *_: None)
    return [tree for _, tree in sorted(trees, key=lambda placed: placed[0])]


def drawn(seed: int) -> Script:
    """Draws every completion from its key: right, wrong, no answer, too long, or out of place."""

    def script(request: Request, sample: int) -> Completion:
        digest = hashlib.sha256(f"{seed}/{request.key}/{sample}".encode()).digest()
        tokens = 1 + digest[1] % request.sampling.max_tokens
        if digest[2] < 12:
            return Completion(
                text=" on and on", tokens=request.sampling.max_tokens, finish="length"
            )
        if digest[2] < 20:
            return Completion(text=" <answer> 1", tokens=tokens, finish="stop")
        texts = (" 1", " 1.0", " 2", " 3", " who knows") if is_answer(request) else (" a", " b")
        return Completion(text=texts[digest[0] % len(texts)], tokens=tokens, finish="stop")

    return script


def answers(*texts: str) -> Script:
    """Answers by sample number; thoughts are all the same."""
    return lambda request, sample: f" {texts[sample]}" if is_answer(request) else " so"


def grown(
    script: Script, transitions: dict[str, Any], *, on_wrong: Any = (), **changes: Any
) -> Tree:
    """One tree of the plain kinds, checked."""
    pattern, config = pattern_of(transitions, **dict(on_wrong)), settings(**changes)
    [tree] = search(script, starter(pattern, PLAIN, config))
    check(tree, pattern, config)
    return tree


def of_kind(tree: Tree, kind: str) -> list[Node]:
    return [node for node in tree.nodes if node.kind == kind]


def is_answer(request: Request) -> bool:
    return request.stop == (f"</{ANSWER}>",)


def check(tree: Tree, pattern: Pattern, config: SearchConfig) -> None:
    """Walk all nodes: form, transitions, counts, budgets and the stopping rule."""
    children: dict[int, list[Node]] = {node.id: [] for node in tree.nodes}
    for place, node in enumerate(tree.nodes):
        assert node.id == place
        if node.parent is not None:
            assert node.parent < node.id
            children[node.parent].append(node)
    for node in tree.nodes:
        _check_children(node, children[node.id], pattern)
        _check_run(tree, node, children, pattern)
        _check_counts(node, children[node.id], config)
        assert len(tree.path(node.id)) <= config.max_depth
    leaves = [node for node in tree.nodes if node.verdict]
    correct = sum(n.visits if config.count == "visits" else 1 for n in leaves if _is(n, "correct"))
    wrong = sum(n.visits if config.count == "visits" else 1 for n in leaves if _is(n, "wrong"))
    assert tree.nodes[0].visits == tree.usage["rollouts"] <= config.max_rollouts
    assert len(tree.nodes) <= config.max_nodes
    assert tree.usage["completion_tokens"] <= config.max_tokens
    solved = correct >= config.accept_correct
    mixed = wrong > 0 or config.enough_wrong == 0
    assert tree.status in (
        ("solved" if mixed else "too_easy",) if solved else ("unsolved", "budget")
    )


def _is(node: Node, verdict: str) -> bool:
    return node.verdict == verdict


def _check_children(node: Node, children: list[Node], pattern: Pattern) -> None:
    """Kinds and their numbers are the row's; `on_wrong` counts beside a wrong answer only."""
    allowed = dict(pattern.transitions.get(node.kind, {}))
    if any(child.verdict == "wrong" for child in children):
        for kind, n in pattern.on_wrong.items():
            allowed[kind] = max(n, allowed.get(kind, 0))
    for kind in {child.kind for child in children}:
        assert sum(c.copies for c in children if c.kind == kind) <= allowed.get(kind, 0)
    assert len({(c.kind, c.text) for c in children}) == len(children)
    if node.verdict:
        assert not children


def _check_run(tree: Tree, node: Node, children: dict[int, list[Node]], pattern: Pattern) -> None:
    """No kind stands in a row longer than max_run, but for one that mends a wrong answer."""
    path = tree.path(node.id)
    mends = [
        n.kind in pattern.on_wrong and any(_is(c, "wrong") for c in children[n.parent or 0])
        for n in path
    ]
    for kind, run in groupby(zip(path, mends, strict=True), key=lambda pair: pair[0].kind):
        held = sum(not mending for _, mending in run)
        assert held <= pattern.max_run.get(kind, held)


def _check_counts(node: Node, children: list[Node], config: SearchConfig) -> None:
    """Visits and values are the sums over the children; a distinct chain is visited once."""
    if node.verdict:
        assert node.value == (node.visits if node.verdict == "correct" else 0)
        assert config.count == "visits" or node.visits == 1
    else:
        assert node.visits == sum(child.visits for child in children)
        assert node.value == sum(child.value for child in children)
