"""Finished chains of a tree: what SFT and preference pairs are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marco.search.tree import Tree

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The path from a tree's prompt to a node with a verdict, as one text.

    `node` is the id of its last node, `ids` its token ids without the end token: those of its nodes
    end to end, so that a path's ids are a prefix of its children's. `parts` are the kinds of its
    nodes, each with its characters; the verdict is `correct`, `wrong` or `no_answer`.
    """

    tree_id: str
    node: int
    text: str
    verdict: str
    answer: str | None
    ids: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]

    @property
    def tokens(self) -> int:
        return len(self.ids)


def chains_of(tree: Tree, encode: Encode) -> list[Chain]:
    """All finished chains of a tree in the order of its nodes, without duplicates.

    The same text split into other nodes is the same chain, and so are texts that the tokenizer
    normalises to the same ids. The first one stays.
    """
    chains: list[Chain] = []
    seen: set[str | tuple[int, ...]] = set()
    for node in tree.nodes:
        if node.verdict is None:
            continue
        path = tree.path(node.id)
        text = "".join(n.text for n in path)
        ids = tuple(id for n in path for id in encode(n.text))
        if text in seen or ids in seen:
            continue
        seen |= {text, ids}
        chain = Chain(
            tree_id=tree.id,
            node=node.id,
            text=text,
            verdict=node.verdict,
            answer=node.answer,
            ids=ids,
            parts=tuple((n.kind, len(n.text)) for n in path),
        )
        chains.append(chain)
    return chains
