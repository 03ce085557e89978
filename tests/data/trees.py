"""Trees written by hand, and an encoding without a tokenizer: one token per UTF-8 byte."""

from collections.abc import Sequence

from marco.data.chains import Chain
from marco.search.tree import Node, Tree


def encode(text: str) -> list[int]:
    return list(text.encode())


def node(id: int, parent: int | None, text: str, verdict: str | None = None) -> Node:
    kind = "answer" if verdict else "thinking" if parent is not None else "prompt"
    return Node(id=id, parent=parent, kind=kind, model="scripted", text=text, verdict=verdict)


def tree(id: str, nodes: Sequence[Node], *, status: str = "solved") -> Tree:
    return Tree(
        id=id,
        task="arithmetic",
        problem=f"What is {id}?",
        gold="4",
        pattern="a",
        models={},
        seed=0,
        status=status,
        usage={},
        nodes=list(nodes),
    )


def mixed_tree(id: str = "t0") -> Tree:
    """Two thoughts below the prompt, six finished nodes, five distinct chains.

    correct: "a 4" (3 tokens), "b four" (6); wrong: "a 5" (3), "b nine" (6); no answer: "b" (1),
    and "a 4" once more, split otherwise.
    """
    return tree(
        id,
        [
            node(0, None, "prompt"),
            node(1, 0, "a"),
            node(2, 1, " 4", "correct"),
            node(3, 1, " 5", "wrong"),
            node(4, 0, "b"),
            node(5, 4, " four", "correct"),
            node(6, 4, " nine", "wrong"),
            node(7, 4, "", "no_answer"),
            node(8, 0, "a 4", "correct"),
        ],
    )


def chain(text: str, *, verdict: str = "correct", node: int = 1) -> Chain:
    return Chain(
        tree_id="t0",
        node=node,
        text=text,
        verdict=verdict,
        answer=None,
        ids=tuple(encode(text)),
        parts=(("answer", len(text)),),
    )
