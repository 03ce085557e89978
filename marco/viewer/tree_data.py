"""A tree as the page takes it: its nodes with UCB, and why each finished chain has its verdict."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from marco.errors import UserError
from marco.evaluation.error_classes import ErrorClassesConfig
from marco.manifest import CONFIG, order_of
from marco.search.tree import Node, Tree
from marco.search.ucb import ucb
from marco.tasks.problem import Problem
from marco.tasks.registry import TaskConfig, make_task
from marco.tasks.task import Task
from marco.viewer.index import chain_classes, distinct_chains


def tree_data(tree: Tree, *, c: float | None) -> dict[str, Any]:
    """All of a tree; nodes have `ucb` where `c`, the search's constant, is known and it is finite.

    `chains` are the distinct finished ones: `node` (the last) and `tokens`.
    """
    data = asdict(tree)
    for node, own in zip(tree.nodes, data["nodes"], strict=True):
        own["ucb"] = _ucb(tree, node, c)
    data["chains"] = [
        {"node": leaf.id, "tokens": tokens} for _, leaf, tokens in distinct_chains(tree)
    ]
    return data


def _ucb(tree: Tree, node: Node, c: float | None) -> float | None:
    """As the search would weigh the node now that it is over; None where it is infinite."""
    if c is None or node.parent is None or not node.visits:
        return None
    return ucb(node.value, node.visits, max(tree.nodes[node.parent].visits, 1), c=c)


def search_config(folder: Path) -> Mapping[str, Any] | None:
    """The config that trees were grown with; None where it does not lie beside them."""
    return order_of(folder)["config"] if (folder / CONFIG).is_file() else None


def task_of(folder: Path) -> Task | None:
    """The task of a folder's trees, with the config that they were grown with; None without it."""
    if not (folder / CONFIG).is_file():
        return None
    try:
        values = order_of(folder)["labels"]["task"]
        return make_task(TypeAdapter(TaskConfig).validate_python(values))
    except (KeyError, ValidationError, UserError):  # of another version: the rest can be shown
        return None


def verdict_data(
    tree: Tree, *, task: Task | None, classes: ErrorClassesConfig
) -> dict[int, dict[str, Any]]:
    """Of each finished node `why` it has its verdict, None where that is not known, and its chain's
    `error_classes`.

    It is told apart from the tree, since a large one can take seconds.
    """
    texts = {leaf.id: text for text, leaf, _ in distinct_chains(tree)}
    why = _reasons(tree, task)
    return {
        node.id: {
            "why": why.get(node.id),
            "error_classes": chain_classes(texts[node.id], node, classes)
            if node.id in texts
            else [],
        }
        for node in tree.nodes
        if node.verdict is not None
    }


def _reasons(tree: Tree, task: Task | None) -> dict[int, str]:
    """What the search says of a verdict, or else the verifier now."""
    finished = [node for node in tree.nodes if node.verdict is not None]
    found = {node.id: reason for node in finished if (reason := _of_search(node))}
    if task is None:
        return found
    rest = [node for node in finished if node.id not in found]
    problem = Problem(id=tree.id, problem=tree.problem, answer=tree.gold)
    chains = ["".join(passed.text for passed in tree.path(node.id)) for node in rest]
    verdicts = task.verify_all([(chain, problem) for chain in chains])
    for node, verdict in zip(rest, verdicts, strict=True):
        read = "no answer read" if verdict.answer is None else f"read {verdict.answer}"
        told = f"{read} (rule: {verdict.why}), gold {tree.gold}"
        same = verdict.verdict == node.verdict
        found[node.id] = told if same else f"{told}; {verdict.verdict} for the verifier of today"
    return found


def _of_search(node: Node) -> str | None:
    if node.finish == "length":
        return "the node outran node_tokens"
    return None if node.kind == "answer" else "the node opens another node"
