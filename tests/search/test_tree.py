import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.errors import UserError
from marco.search.tree import Node, Tree, read_trees, write_trees

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def tree(*texts: str) -> Tree:
    """A chain of nodes below the prompt, the last of which ends it."""
    nodes = [
        Node(id=i, parent=i - 1 if i else None, kind="thinking", model="m", text=text, visits=1)
        for i, text in enumerate(texts)
    ]
    nodes[-1].verdict, nodes[-1].answer, nodes[-1].copies = "wrong", "5", 3
    return Tree(
        id="p0",
        task="test",
        problem=texts[0],
        gold="4",
        pattern="a",
        models={"thinking": "m"},
        seed=7,
        status="unsolved",
        usage={"rollouts": 1},
        nodes=nodes,
    )


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_json_round_trip(texts: list[str]) -> None:
    written = tree(*texts)
    assert Tree.from_json(json.loads(written.to_json())) == written
    assert "\n" not in written.to_json()


def test_a_file_of_trees_round_trips(tmp_path: Path) -> None:
    trees = [tree("a", "b\u2028c\r\n"), tree("<\u00e9>")]
    write_trees(tmp_path / "trees.jsonl", trees)
    assert list(read_trees(tmp_path / "trees.jsonl")) == trees
    assert list(read_trees(tmp_path)) == trees


def test_unset_verdicts_are_left_out() -> None:
    nodes = json.loads(tree("a", "b").to_json())["nodes"]
    assert "verdict" not in nodes[0] and "answer" not in nodes[0]
    assert (nodes[1]["verdict"], nodes[1]["answer"], nodes[1]["copies"]) == ("wrong", "5", 3)


def test_path_leaves_the_prompt_out() -> None:
    assert [n.text for n in tree("p", "a", "b").path(2)] == ["a", "b"]
    assert tree("p", "a").path(0) == []


def record(**changes: Any) -> bytes:
    return json.dumps({**json.loads(tree("a", "b").to_json()), **changes}).encode()


NODE = {"kind": "thinking", "model": None, "text": ""}


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"",
        b"[]",
        b"null",
        b'"\xff"',
        record(schema=2),
        record(nodes=None),
        record(nodes=[{"id": 0}]),
        record(nodes=[{"id": 0, "parent": None, **NODE, "colour": "red"}]),
        record(nodes=[{"id": 0, "parent": 0, **NODE}]),
        record(nodes=[{"id": 0, "parent": None, **NODE}, {"id": 1, "parent": 1, **NODE}]),
        record(nodes=[{"id": 0, "parent": None, **NODE}, {"id": 1, "parent": None, **NODE}]),
        record(nodes=[{"id": 0, "parent": None, **NODE}, {"id": 2, "parent": 0, **NODE}]),
        record(mood="good"),
        json.dumps({"schema": 1}).encode(),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "trees.jsonl"
    file.write_bytes(record() + b"\n" + line + b"\n")
    trees = read_trees(file)
    next(trees)
    with pytest.raises(UserError, match="trees.jsonl, line 2: not a tree"):
        next(trees)


def test_missing_trees_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trees at .*nowhere"):
        next(read_trees(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no trees at"):
        next(read_trees(tmp_path))
