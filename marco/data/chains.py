"""Finished chains of a tree: what SFT and preference pairs are made of."""

from collections.abc import Callable
from dataclasses import dataclass

from marco.search.tree import Tree

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The path from a tree's prompt to a node with a verdict, as one text.

    `node` is the id of its last node, `ids` its token ids without the end token, `kinds` the kinds
    of its nodes; the verdict is `correct`, `wrong` or `no_answer`.
    """

    tree_id: str
    node: int
    text: str
    verdict: str
    answer: str | None
    ids: tuple[int, ...]
    kinds: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return len(self.ids)


def chains_of(tree: Tree, encode: Encode) -> list[Chain]:
    """All finished chains of a tree in the order of its nodes, without duplicates.

    Chains are compared by their token ids: the same text split into other nodes is the same chain,
    and so are texts that the tokenizer normalises to the same ids. The first one stays.
    """
    chains: dict[tuple[int, ...], Chain] = {}
    for node in tree.nodes:
        if node.verdict is None:
            continue
        path = tree.path(node.id)
        text = "".join(n.text for n in path)
        ids = tuple(encode(text))
        chain = Chain(
            tree_id=tree.id,
            node=node.id,
            text=text,
            verdict=node.verdict,
            answer=node.answer,
            ids=ids,
            kinds=tuple(n.kind for n in path),
        )
        chains.setdefault(ids, chain)
    return list(chains.values())
