import random
from pathlib import Path

import pytest

from marco.data.datasets import build_pairs, save
from marco.search.tree import Tree
from marco.viewer import pairs as viewer_pairs
from marco.viewer.pairs import Pairs, carrying, pairs_of_trees, students_of

from .folder import KEY, write_manifest

HEAD = (
    "row,step,margin_nats,length_difference_tokens,chosen_tokens,rejected_tokens,chosen_reward,"
    "rejected_reward"
)


@pytest.fixture
def dataset(folder: Path, trees: list[Tree], embedded_folder: Path) -> Path:
    from marco.engines.prompts import ChatTokenizer

    out = folder.parents[1] / "dataset" / "pairs-shortest-1"
    out.mkdir(parents=True)
    rows, stats = build_pairs(
        trees,
        encode=ChatTokenizer.load(embedded_folder).encode,
        bucket="any",
        choice="shortest_prefix",
        per_tree=3,
        max_tokens=768,
        classify=lambda _: (),
        drop=(),
        annotations=None,
        rng=random.Random(0),
    )
    save(rows, out, stats=stats)
    write_manifest(out, "dataset", "d" * 64, {"trees": KEY})
    order = f'{{"kind": "dataset", "config": {{"form": "pairs", "student": "{embedded_folder}"}}}}'
    (out / "config.yaml").write_text(order, "utf-8")
    student = folder.parents[1] / "student" / "dpo-1"
    student.mkdir(parents=True)
    write_manifest(student, "student", "s" * 64, {"dataset": "d" * 64})
    (student / "pairs.csv").write_text(
        f"{HEAD}\n1,1,0.5,2,10,8,0.1,0.05\n1,9,2.5,2,10,8,0.3,0.05\n"
    )
    return out


def test_pairs_are_found_by_their_manifests(folder: Path, dataset: Path) -> None:
    assert pairs_of_trees(folder) == dataset
    assert [path.name for path in students_of(dataset)] == ["dpo-1"]
    total, rows = Pairs(dataset, students_of(dataset)).page(tree="", offset=0, limit=2)
    assert [row["margin_nats"] for row in rows] == [None, 2.5] and total > 2
    own, _ = Pairs(dataset, []).page(tree=rows[0]["id"], offset=0, limit=9)
    assert 0 < own < total


@pytest.mark.parametrize("scope", ["none", "preference", "sft", "all"])
def test_the_segments_say_which_tokens_carry_loss(dataset: Path, scope: str) -> None:
    """The slow twin: what the data module hands to the losses, token by token."""
    from marco.engines.prompts import ChatTokenizer
    from marco.training.config import LossConfig
    from marco.training.data_module import Packer
    from marco.training.examples import read_examples

    pairs = Pairs(dataset, [])
    folder = pairs.tokenizer.chat.source
    tokenizer = ChatTokenizer.load(folder).tokenizer
    # A loss in which the prefix does not cancel, so that the packer leaves nothing out by itself.
    preference = {"name": "simpo", "beta": 1.0, "gamma": 0.0}
    loss = LossConfig(preference=preference, alpha=1.0, mask=scope, weights={})
    packer = Packer(loss, None)
    for example in read_examples(dataset, tokenizer, max_tokens=2048).examples:
        shown = pairs.read(example.row, scope)
        batch = packer.pack([example])
        for side, name in enumerate(("chosen", "rejected")):
            count = len(example.completions[side])
            weights = batch.weights[side][:count].tolist()
            assert shown[name]["carrying_tokens"]["preference"] == sum(weights)
            told = {"preference": weights}
            if name == "chosen":
                told["sft"] = batch.sft_mask[0][:count].tolist()
                assert shown[name]["carrying_tokens"]["sft"] == sum(told["sft"])
            for term, marks in told.items():
                ids = [
                    i
                    for i, mark in zip(example.completions[side][:-1], marks, strict=False)
                    if mark
                ]
                carried = "".join(s["text"] for s in shown[name]["segments"] if s[term])
                assert tokenizer.decode(ids) == carried
            assert shown[name]["tokens"] == count - 1


def test_segments_are_the_text_shared_first_and_differences_marked(dataset: Path) -> None:
    pairs = Pairs(dataset, [])
    row = pairs.rows[0]
    shown = pairs.read(0, "all")
    for side in ("chosen", "rejected"):
        segments = shown[side]["segments"]
        assert "".join(s["text"] for s in segments) == row[side][0]["content"]
        shared = [s["shared"] for s in segments]
        assert shared == sorted(shared, reverse=True)
        assert not any(s["shared"] and s["preference"] for s in segments)
    prefixes = [
        "".join(s["text"] for s in shown[side]["segments"] if s["shared"])
        for side in ("chosen", "rejected")
    ]
    assert prefixes[0] == prefixes[1]


def test_differences_word_by_word() -> None:
    left, right = viewer_pairs._differing("we have 4 now", "we had 5 now")
    assert [("we have 4 now"[a:b]) for a, b in left] == ["have", "4"]
    assert [("we had 5 now"[a:b]) for a, b in right] == ["had", "5"]
    assert viewer_pairs._differing("a " * 3000, "b " * 3000) == ([], [])


def test_without_the_tokenizer_only_what_is_sure_is_told(dataset: Path, monkeypatch) -> None:
    pairs = Pairs(dataset, [])
    monkeypatch.setattr(Pairs, "tokenizer", None)
    shown = pairs.read(0, "preference")
    assert not shown["has_tokens"]
    assert {s["preference"] for s in shown["chosen"]["segments"]} == {None}
    assert {s["sft"] for s in shown["chosen"]["segments"]} == {True}


def test_where_the_terms_begin() -> None:
    assert carrying(7, "none") == {"preference": 0, "sft": 0}
    assert carrying(7, "preference") == {"preference": 7, "sft": 0}
    assert carrying(7, "sft") == {"preference": 0, "sft": 7}
    assert carrying(7, "all") == {"preference": 7, "sft": 7}
