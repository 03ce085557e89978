import json
import random
from pathlib import Path

import pytest

from marco.data.annotations import Annotations, Opinion, chain_digest, told
from marco.data.chains import chains_of
from marco.data.datasets import build_pairs, build_sft
from marco.data.statistics import format_stats
from marco.errors import UserError

from .trees import encode, mixed_tree, node, tree

TEXTS = {2: "a 4", 3: "a 5", 5: "b four", 6: "b nine", 7: "b"}  # of mixed_tree, by node


def said(*opinions: tuple[str, str, str | None], tree_id: str = "t0") -> Annotations:
    found: dict = {}
    for text, label, edited in opinions:
        found.setdefault((tree_id, chain_digest(text)), []).append(Opinion(label, edited))
    return Annotations(found)


def apply(annotations: Annotations):
    kept, counted, _ = annotations.apply(chains_of(mixed_tree(), encode), encode)
    return {chain.text: chain.verdict for chain in kept}, {k: n for k, n in counted.items() if n}


def test_labels_are_verdicts_and_discards_leave() -> None:
    kept, counted = apply(
        said(("a 4", "wrong", None), ("b", "correct", None), ("a 5", "discard", None))
    )
    assert kept == {"a 4": "wrong", "b four": "correct", "b nine": "wrong", "b": "correct"}
    assert counted == {"wrong": 1, "correct": 1, "discarded": 1, "verdict_changed": 2}


def test_an_edited_text_takes_the_place_of_its_own() -> None:
    kept, counted = apply(said(("b nine", "correct", "b 4!")))
    assert kept["b 4!"] == "correct" and "b nine" not in kept
    assert counted == {"correct": 1, "edited": 1, "verdict_changed": 1}
    [chain] = [
        c
        for c in said(("b nine", "correct", "b 4!")).apply(chains_of(mixed_tree(), encode), encode)[
            0
        ]
        if c.text == "b 4!"
    ]
    assert chain.ids == tuple(b"b 4!") and chain.answer is None


def test_annotators_who_disagree_take_a_chain_out() -> None:
    kept, counted = apply(said(("a 4", "correct", None), ("a 4", "wrong", None)))
    assert "a 4" not in kept and counted == {"disagreed": 1}
    kept, counted = apply(said(("a 4", "correct", None), ("a 4", "correct", "a 44")))
    assert "a 4" not in kept and "a 44" not in kept and counted == {"disagreed": 1}
    kept, counted = apply(said(("a 4", "correct", None), ("a 4", "correct", None)))
    assert kept["a 4"] == "correct" and counted == {"correct": 1}


def test_edits_that_make_chains_equal_leave_one() -> None:
    kept, counted = apply(said(("b four", "correct", "a 4"), ("a 4", "correct", None)))
    assert list(kept).count("a 4") == 1 and counted["edited"] == 1


TAGGED = "<thinking>\n2 + 2\n</thinking>\n", "<answer>\n5\n</answer>\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "<thinking>\n1\n</thinking>\n<answer>\n4\n</answer>\n",
            [("thinking", 25), ("answer", 21)],
        ),
        ("<thinking>\n1\n</thinking>\nso\n<answer>\n4\n</answer>\n", []),
        ("<answer>\n4\n</answer>\n", []),
        ("4", []),
    ],
)
def test_an_edited_text_keeps_its_nodes_where_their_tags_are(text, parts) -> None:
    own = tree("t0", [node(0, None, "p"), node(1, 0, TAGGED[0]), node(2, 1, TAGGED[1], "wrong")])
    annotations = said(("".join(TAGGED), "correct", text))
    [chain] = annotations.apply(chains_of(own, encode), encode)[0]
    assert chain.text == text and list(chain.parts) == parts and chain.ids == tuple(text.encode())


def test_datasets_honour_annotations_and_count_them() -> None:
    options = {"encode": encode, "bucket": "any", "per_tree": 9, "max_tokens": 99}
    options |= {"classify": lambda _: (), "drop": (), "rng": random.Random(0)}
    annotations = said(
        ("a 4", "discard", None), ("b nine", "correct", "b 9!"), ("gone", "wrong", None)
    )
    rows, stats = build_sft([mixed_tree()], annotations=annotations, **options)
    assert {row["completion"][0]["content"] for row in rows} == {"b four", "b 9!"}
    assert stats["annotations"] == told(
        {"correct": 1, "discarded": 1, "edited": 1, "verdict_changed": 1}, given=3, matched=2
    )
    assert stats["annotations"]["unmatched"] == 1
    # Six finished nodes, of which two are "a 4"; the discarded chain is no duplicate.
    assert (stats["chains"], stats["duplicates_removed"]) == (4, 1)
    assert "annotated" in format_stats(stats)
    rows, _ = build_pairs([mixed_tree()], annotations=annotations, choice="random", **options)
    assert {row["rejected"][0]["content"] for row in rows} == {"a 5"}
    _, plain = build_sft([mixed_tree()], annotations=None, **options)
    assert "annotations" not in plain and "annotated" not in format_stats(plain)


def line(**changes) -> str:
    values = {"tree": "t", "node": 1, "chain": "c", "annotator": "ada", "label": "correct"}
    return json.dumps(values | {"text": None, "at": ""} | changes) + "\n"


def test_of_an_annotators_lines_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line() + line(label="discard") + line(annotator="bob", text="x"), "utf-8")
    assert Annotations.read(path).opinions == {
        ("t", "c"): (Opinion("discard", None), Opinion("correct", "x"))
    }


@pytest.mark.parametrize("changes", [{"label": "yes"}, {"text": 3}, {"chain": None}, {"tree": 1}])
def test_a_line_that_is_no_annotation_is_named(tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line() + line(**changes), "utf-8")
    with pytest.raises(UserError, match="line 2"):
        Annotations.read(path)
