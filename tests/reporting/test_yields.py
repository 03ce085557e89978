"""What trees yield and cost, by hand, and found behind a row's scores."""

import json
from pathlib import Path

import pytest

from marco.manifest import MANIFEST, SCHEMA
from marco.reporting.yields import TreeCounts, tree_grid, trees_behind
from marco.search.tree import Node, Tree, write_trees


def tree(name: str, ends: list[tuple[str, str]], tokens: int) -> Tree:
    """A tree whose chains are one node each: (verdict, answer)."""
    nodes = [Node(id=0, parent=None, kind="prompt", model=None, text="")]
    for i, (verdict, answer) in enumerate(ends, 1):
        text = f"<answer>{answer} by way {i}</answer>\n"
        nodes.append(
            Node(
                id=i,
                parent=0,
                kind="answer",
                model="m",
                text=text,
                verdict=verdict,
                answer=answer if verdict != "no_answer" else None,
            )
        )
    shared = {"task": "t", "problem": "?", "gold": "1", "pattern": "a", "models": {}, "seed": 0}
    return Tree(
        id=name, status="solved", usage={"completion_tokens": tokens}, nodes=nodes, **shared
    )


MIXED = tree("a", [("correct", "1"), ("correct", "1"), ("wrong", "2"), ("wrong", "2")], 500)
HOPELESS = tree("b", [("wrong", "3"), ("wrong", "4"), ("no_answer", "")], 1500)


def stage(folder: Path, **inputs: Path) -> Path:
    folder.mkdir()
    told = {name: {"path": str(path), "key": "0"} for name, path in inputs.items()}
    (folder / MANIFEST).write_text(json.dumps({"schema": SCHEMA, "key": "0", "inputs": told}))
    return folder


def test_counts_of_a_tree() -> None:
    assert TreeCounts.of(MIXED) == TreeCounts(correct=2, wrong=2, repeated=1, tokens=500)
    assert TreeCounts.of(HOPELESS) == TreeCounts(correct=0, wrong=2, repeated=0, tokens=1500)


def test_yields_by_hand(tmp_path: Path) -> None:
    trees = stage(tmp_path / "trees")
    write_trees(trees / "trees.jsonl", [MIXED, HOPELESS])
    dataset = stage(tmp_path / "dataset", trees=trees)
    scores = stage(tmp_path / "scores", student=stage(tmp_path / "student", dataset=dataset))
    base = stage(tmp_path / "base")
    assert trees_behind(scores) == trees and trees_behind(base) is None
    grid = tree_grid([("SFT", scores), ("base", base), ("SFT", scores)], confidence=0.95)
    assert grid is not None
    text = grid.markdown()
    [row] = [line for line in text.splitlines() if line.startswith("| SFT ")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "2"
    assert cells[2].startswith("50.0 [")
    # 2 chains in 2,000 tokens; draws of twice the same tree bound it.
    assert cells[3] == "1.00 [0.00, 4.00]"
    assert cells[4] == "1,000 [500, 1,500]"
    assert cells[5] == "25.0 [0.0, 50.0]"  # one of four wrong chains
    assert "base" not in text


def test_rows_without_trees_give_nothing(tmp_path: Path) -> None:
    assert tree_grid([("base", stage(tmp_path / "base"))], confidence=0.9) is None


@pytest.mark.parametrize("verdict", ["correct", "no_answer"])
def test_a_tree_without_wrong_chains_has_no_share_of_repeated_ones(
    verdict: str, tmp_path: Path
) -> None:
    trees = stage(tmp_path / "trees")
    write_trees(trees / "trees.jsonl", [tree("c", [(verdict, "1")], 10)])
    grid = tree_grid([("x", trees)], confidence=0.95)
    assert grid is not None and grid.rows[0][-1] is None
