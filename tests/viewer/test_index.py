import os
import sqlite3
import time
from pathlib import Path

import pytest

from marco.errors import UserError
from marco.search.tree import Tree
from marco.viewer import index as index_module
from marco.viewer.index import Chain, Filter, Index, distinct_chains


def listed(index: Index, filter: Filter, **order) -> list[str]:
    asked = {"sort": "n", "descending": False, "offset": 0, "limit": 100} | order
    return [row["id"] for row in index.page(filter, **asked)]


def test_a_row_counts_what_its_tree_holds(index: Index, trees: list[Tree]) -> None:
    rows = index.page(Filter(), sort="n", descending=False, offset=0, limit=100)
    assert len(rows) == len(trees) == index.counts(Filter())["trees"]
    for row, tree in zip(rows, trees, strict=True):
        chains = distinct_chains(tree)
        assert (row["id"], row["problem"], row["gold"]) == (tree.id, tree.problem, tree.gold)
        assert row["nodes"] == len(tree.nodes)
        assert row["chains"] == row["correct"] + row["wrong"] + row["no_answer"] == len(chains)
        assert row["solved_share"] == row["correct"] / row["chains"]
        lengths = [sum(n.tokens for n in tree.path(leaf.id)) for _, leaf, _ in chains]
        assert (row["shortest"], row["longest"]) == (min(lengths), max(lengths))
        assert index.read(row["n"]) == tree
        assert index.number(tree.id) == row["n"] and index.id(row["n"]) == tree.id
    assert index.read(len(trees)) is None and index.number("nobody") is None


def test_filters_agree_with_the_trees(index: Index, trees: list[Tree]) -> None:
    def of(holds) -> list[str]:
        return [tree.id for tree in trees if holds(tree)]

    for status in {tree.status for tree in trees}:
        assert listed(index, Filter(status=status)) == of(lambda t, s=status: t.status == s)
    for verdict in ("correct", "wrong", "no_answer"):
        expected = of(lambda t, v=verdict: any(n.verdict == v for n in t.nodes))
        assert listed(index, Filter(verdict=verdict)) == expected
    reflecting = of(lambda t: any(n.kind == "reflection" for n in t.nodes))
    assert listed(index, Filter(kind="reflection")) == reflecting
    assert listed(index, Filter(kind="reflect")) == []  # a name, no part of one
    assert listed(index, Filter(pattern="b")) == []
    cut = of(lambda t: any(n.finish == "length" for n in t.nodes))
    assert set(listed(index, Filter(error_class="truncation"))) == set(cut)


@pytest.mark.parametrize("text", ["who knows", "knows who", "KNOW", "who kno"])
def test_words_are_found_in_any_order_the_last_as_it_begins(
    index: Index, trees: list[Tree], text: str
) -> None:
    holds = [t.id for t in trees if any("who knows" in n.text for n in t.nodes)]
    assert listed(index, Filter(text=text)) == holds and holds


@pytest.mark.parametrize(
    "text", ['"', "AND", "a OR b", "NEAR(", "text:", "*", "-", "p3'; --", "\0"]
)
def test_a_search_is_words_and_no_query(index: Index, text: str) -> None:
    listed(index, Filter(text=text))
    assert index.counts(Filter())["trees"] == 8


def test_an_id_is_found(index: Index) -> None:
    assert listed(index, Filter(text="p3")) == ["p3"]


def test_order_and_pages(index: Index) -> None:
    all_of_it = listed(index, Filter())
    for sort in ("nodes", "solved_share", "longest", "id"):
        rows = index.page(Filter(), sort=sort, descending=True, offset=0, limit=100)
        assert [row[sort] for row in rows] == sorted((row[sort] for row in rows), reverse=True)
    assert listed(index, Filter(), offset=3, limit=2) == all_of_it[3:5]


def test_chains_in_both_directions(index: Index, trees: list[Tree]) -> None:
    every = [Chain(n, leaf.id) for n, t in enumerate(trees) for _, leaf, _ in distinct_chains(t)]
    assert list(index.chains(Filter(), after=Chain(-1, -1))) == every
    assert list(index.chains(Filter(), after=every[4])) == every[5:]
    assert list(index.chains(Filter(), after=every[4], backwards=True)) == every[:4][::-1]
    one = [chain for chain in every if chain.n == 3]
    assert list(index.chains(Filter(text="p3"), after=Chain(-1, -1))) == one


def test_an_index_is_kept_until_its_trees_change(index: Index, folder: Path) -> None:
    made = index.path.stat().st_mtime_ns
    Index.open(folder).close()
    assert index.path.stat().st_mtime_ns == made
    lines = (folder / "trees.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "trees.jsonl").write_text("".join(lines[:3]), "utf-8")
    os.utime(folder / "trees.jsonl", ns=(time.time_ns(), made + 1))
    again = Index.open(folder)
    assert again.counts(Filter())["trees"] == 3
    again.close()


def test_several_processes_make_the_index_that_one_makes(
    index: Index, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "POOLED_BYTES", 0)
    monkeypatch.setattr(index_module, "BATCH", 1)
    shared = Index.open(folder, path=tmp_path / "shared.sqlite")
    for table in ("made", "trees", "problems", "chains"):
        one, other = (
            sqlite3.connect(path).execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for path in (index.path, shared.path)
        )
        assert one == other and one
    everything = {"after": Chain(-1, 0)}
    assert list(shared.chains(Filter(text="the"), **everything)) == list(
        index.chains(Filter(text="the"), **everything)
    )
    shared.close()


def test_the_folder_of_trees_stays_as_it_is(index: Index, folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.yaml", "journal", "manifest.json", "trees.jsonl",
    ]  # fmt: skip
    assert index.path.parent == folder.parent


def test_a_line_that_is_no_tree_is_named(folder: Path, trees: list[Tree]) -> None:
    with (folder / "trees.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match="line 9: not a tree"):
        Index.open(folder)
    assert not list(folder.parent.glob("*index*"))


def test_no_trees_and_no_place_for_the_index(
    tmp_path: Path, folder: Path, trees: list[Tree]
) -> None:
    with pytest.raises(UserError, match="no trees at"):
        Index.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="--index"):
        Index.open(folder, path=tmp_path / "missing" / "index.sqlite")
