from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from marco.errors import UserError
from marco.manifest import order_of
from marco.search.pattern import Kinds, Pattern
from marco.search.replay import replay
from marco.search.tree import Tree

from ..viewer.folder import grow


@pytest.mark.parametrize("count", ["distinct", "visits"])
def test_the_steps_lead_to_the_tree(
    tmp_path: Path, pattern: Pattern, kinds: Kinds, count: str
) -> None:
    folder = tmp_path / "trees"
    for tree in grow(folder, pattern, kinds, counted=count):
        steps = replay(tree, order_of(folder)["config"], _journals(folder))
        written = [step["node"] for step in steps if step["event"] == "expansion"]
        assert sorted(written) == list(range(1, len(tree.nodes)))
        for place, node in enumerate(written):
            parent = tree.nodes[node].parent
            assert parent == 0 or parent in written[:place]
        copies = Counter(step["node"] for step in steps if step["event"] == "copy")
        assert copies == {n.id: n.copies - 1 for n in tree.nodes if n.copies > 1}
        assert [n for n in written if tree.nodes[n].verdict] == [
            step["node"] for step in steps if step["event"] == "verdict"
        ]
        assert [step["wave"] for step in steps] == sorted(step["wave"] for step in steps)
        _check_counts(tree, steps)


def _journals(folder: Path) -> list[Path]:
    return sorted((folder / "journal").glob("*.sqlite"))


def _check_counts(tree: Tree, steps: list[dict]) -> None:
    """Visits and values are what the rewards add up to."""
    visits, values = Counter[int](), Counter[int]()
    for step in steps:
        if step["event"] == "backpropagation":
            visits.update(step["path"])
            values.update({node: step["reward"] for node in step["path"]})
    assert all((visits[n.id], values[n.id]) == (n.visits, n.value) for n in tree.nodes)


def test_a_selection_goes_where_the_score_is_highest(
    tmp_path: Path, patterns: Mapping[str, Pattern], kinds: Kinds
) -> None:
    folder = tmp_path / "trees"
    chosen = 0
    for tree in grow(folder, patterns["c"], kinds):
        for step in replay(tree, order_of(folder)["config"], _journals(folder)):
            if step["event"] != "selection":
                continue
            assert len(step["scores"]) == len(step["path"]) - 1
            for child, scores in zip(step["path"][1:], step["scores"], strict=True):
                assert child in dict(scores)
                chosen += len(scores) > 1
    assert chosen


def test_what_the_journal_lacks_or_contradicts_is_told(
    tmp_path: Path, patterns: Mapping[str, Pattern], kinds: Kinds
) -> None:
    folder = tmp_path / "trees"
    tree = grow(folder, patterns["a"], kinds, problems=1)[0]
    config = order_of(folder)["config"]
    with pytest.raises(UserError, match=r"p0/0/.* is not in the journal"):
        replay(tree, config, [])
    changed = replace(tree, nodes=[replace(node) for node in tree.nodes])
    changed.nodes[1].text += "!"
    with pytest.raises(UserError, match="another tree"):
        replay(changed, config, _journals(folder))
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="cannot read the journal"):
        replay(tree, config, [broken])
