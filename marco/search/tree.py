"""Trees of thought as data, and their form on disk (JSON Lines, one tree a line)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from marco.errors import UserError

SCHEMA = 1


@dataclass(kw_only=True)
class Node:
    """One thought: `text` holds its tags and ends in a newline; `tokens` counts that text.

    `value` is the sum of the rewards of the `visits` that went through it; `copies` counts the
    siblings of the same kind and text that were merged into it. A node that ends a chain carries a
    `verdict` (`correct`, `wrong`, `no_answer`).
    """

    id: int
    parent: int | None
    kind: str
    model: str | None
    text: str
    visits: int = 0
    value: float = 0.0
    tokens: int = 0
    finish: str | None = None
    verdict: str | None = None
    answer: str | None = None
    copies: int = 1


@dataclass(kw_only=True)
class Tree:
    """All that the search found for one problem; nodes in depth-first order, node 0 the prompt."""

    id: str
    task: str
    problem: str
    gold: str
    pattern: str
    models: dict[str, str]
    seed: int
    status: str
    usage: dict[str, int]
    nodes: list[Node] = field(default_factory=list)
    schema: int = SCHEMA

    def path(self, node_id: int) -> list[Node]:
        """The nodes from the prompt's child down to `node_id`, without the prompt."""
        path = []
        node = self.nodes[node_id]
        while node.parent is not None:
            path.append(node)
            node = self.nodes[node.parent]
        return path[::-1]

    def to_json(self) -> str:
        record = {"schema": self.schema} | {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("schema", "nodes")
        }
        record["nodes"] = [
            {
                key: value
                for key, value in vars(node).items()  # in the order of the fields
                if value is not None or key not in ("verdict", "answer")
            }
            for node in self.nodes
        ]
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Tree":
        nodes = [Node(**node) for node in record["nodes"]]
        for i, node in enumerate(nodes):
            if node.id != i or (node.parent not in range(i) if i else node.parent is not None):
                raise ValueError(f"node {i}: id {node.id}, parent {node.parent}, not depth-first")
        return cls(**{**record, "nodes": nodes})


def write_trees(path: Path, trees: Iterable[Tree | str]) -> None:
    """Write trees, or their lines."""
    lines = (tree if isinstance(tree, str) else tree.to_json() for tree in trees)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def trees_file(path: Path) -> Path:
    """The file of trees that a path or its folder stands for; UserError for a missing one."""
    path = path / "trees.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"no trees at {path}: it does not exist; give the folder that `generate.py` printed"
        )
    return path


def read_trees(path: Path) -> Iterator[Tree]:
    """Trees of a JSON Lines file, or of the folder that holds `trees.jsonl`.

    Raises UserError for a missing file and for a line that is no tree, naming it.
    """
    path = trees_file(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield parse_tree(line, where=f"{path}, line {number}")


def parse_tree(line: bytes, *, where: str) -> Tree:
    """The tree of a line; UserError for what is none, UTF-8 or not, naming `where` it stands."""
    try:
        record = json.loads(line)
        if record.get("schema") != SCHEMA:
            raise ValueError(f"schema {record.get('schema')!r}, expected {SCHEMA}")
        return Tree.from_json(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not a tree ({error})") from error
