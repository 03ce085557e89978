import json
import random
from pathlib import Path

import datasets
import pytest

from marco.data.datasets import build_pairs, build_sft, save
from marco.data.statistics import format_stats, spread
from marco.errors import UserError

from .trees import encode, mixed_tree, node, tree

RIGHT_ONLY = tree("t1", [node(0, None, "p"), node(1, 0, "the 4", "correct")], status="too_easy")
WRONG_ONLY = tree("t2", [node(0, None, "p"), node(1, 0, "5", "wrong")], status="budget")
UNFINISHED = tree("t3", [node(0, None, "p"), node(1, 0, "hm")], status="budget")
TREES = [mixed_tree(), RIGHT_ONLY, WRONG_ONLY, UNFINISHED]


def never(text: str) -> list[str]:
    raise AssertionError("nothing is dropped by class: no text is to be classified")


def sft(trees=TREES, **choices):
    defaults = {"bucket": "longest", "per_tree": 1, "max_tokens": 100, "rng": random.Random(0)}
    defaults |= {"classify": never, "drop": (), "annotations": None}
    return build_sft(trees, encode=encode, **{**defaults, **choices})


def pairs(trees=TREES, **choices):
    defaults = {"bucket": "any", "choice": "shortest_prefix", "per_tree": 9, "max_tokens": 100}
    defaults |= {"classify": never, "drop": (), "annotations": None, "rng": random.Random(0)}
    return build_pairs(trees, encode=encode, **{**defaults, **choices})


def test_sft_rows_are_the_first_correct_chains_of_the_bucket():
    rows, _ = sft()
    assert rows == [
        {
            "id": "t0",
            "prompt": [{"role": "user", "content": "What is t0?"}],
            "completion": [{"role": "assistant", "content": "b four"}],
            "node": 5,
            "bucket": "longest",
            "tokens": 6,
            "parts": [
                {"kind": "thinking", "characters": 1},
                {"kind": "answer", "characters": 5},
            ],
        },
        {
            "id": "t1",
            "prompt": [{"role": "user", "content": "What is t1?"}],
            "completion": [{"role": "assistant", "content": "the 4"}],
            "node": 1,
            "bucket": "longest",
            "tokens": 5,
            "parts": [{"kind": "answer", "characters": 5}],
        },
    ]
    assert [row["node"] for row in sft(bucket="shortest")[0]] == [2, 1]
    assert sorted(row["node"] for row in sft(bucket="any", per_tree=9)[0]) == [1, 2, 5]


def test_bucket_any_takes_every_correct_chain_at_times():
    rng = random.Random(0)
    drawn = {sft([mixed_tree()], bucket="any", rng=rng)[0][0]["node"] for _ in range(50)}
    assert drawn == {2, 5}


def test_pair_rows_hold_both_chains_and_their_common_prefix():
    rows, _ = pairs()
    found = {
        (row["chosen_node"], row["rejected_node"], row["shared_prefix_tokens"]) for row in rows
    }
    assert found == {(2, 6, 0), (2, 3, 2), (5, 3, 0), (5, 6, 2)}  # "a " and "b " are shared
    row = next(row for row in rows if row["chosen_node"] == 2 and row["rejected_node"] == 3)
    parts = [{"kind": "thinking", "characters": 1}, {"kind": "answer", "characters": 2}]
    assert row == {
        "id": "t0",
        "prompt": [{"role": "user", "content": "What is t0?"}],
        "chosen": [{"role": "assistant", "content": "a 4"}],
        "rejected": [{"role": "assistant", "content": "a 5"}],
        "chosen_node": 2,
        "rejected_node": 3,
        "bucket": "any",
        "chosen_tokens": 3,
        "rejected_tokens": 3,
        "chosen_parts": parts,
        "rejected_parts": parts,
        "shared_prefix_tokens": 2,
    }


def test_a_chain_without_an_answer_is_never_rejected():
    silent = tree(
        "t", [node(0, None, "p"), node(1, 0, "4", "correct"), node(2, 0, "hm", "no_answer")]
    )
    with pytest.raises(UserError, match="both a correct and a wrong chain"):
        pairs([silent])


def test_too_long_chains_leave_before_the_buckets_are_made():
    rows, stats = sft([mixed_tree()], max_tokens=5)
    assert [row["node"] for row in rows] == [2]
    assert stats["dropped_too_long"] == 2  # "b four" and "b nine", 6 tokens each
    assert sft([mixed_tree()], max_tokens=6)[1]["dropped_too_long"] == 0


ERRING = {
    "b four": ["content_repetition"],
    "b nine": ["content_repetition", "over_reflection"],
    "a 5": ["over_reflection", "truncation"],
}


def erring(text: str) -> list[str]:
    return ERRING.get(text, [])


def test_chains_of_dropped_error_classes_leave_before_the_buckets_are_made():
    rows, stats = sft([mixed_tree()], classify=erring, drop=["content_repetition"])
    assert [row["node"] for row in rows] == [2]  # "b four" would be the longest
    assert stats["dropped_error_classes"] == {"content_repetition": 2}
    assert stats["dropped_too_long"] == 0
    assert stats["chains"] == 5  # the dropped ones are still counted
    rows, stats = pairs([mixed_tree()], classify=erring, drop=["truncation"])
    assert {row["rejected_node"] for row in rows} == {6}  # "a 5" is gone
    assert stats["dropped_error_classes"] == {"truncation": 1}
    _, stats = sft([mixed_tree()], classify=erring, drop=["over_reflection", "content_repetition"])
    assert stats["dropped_error_classes"] == {"content_repetition": 2, "over_reflection": 2}


def test_a_chain_that_is_too_long_is_not_classified():
    _, stats = sft([mixed_tree()], max_tokens=5, classify=erring, drop=["over_reflection"])
    assert stats["dropped_too_long"] == 2  # "b four" and "b nine"
    assert stats["dropped_error_classes"] == {"over_reflection": 1}  # "a 5"


def test_the_table_tells_what_was_dropped_by_class():
    _, stats = sft(classify=erring, drop=["content_repetition", "over_reflection"])
    assert "dropped, erring       content repetition 2, over reflection 2" in format_stats(stats)
    assert "dropped, erring" not in format_stats(sft()[1])


def test_an_empty_dataset_says_that_classes_were_dropped():
    with pytest.raises(UserError, match="2 chain.s. as too long, and data.drop_error_classes 3"):
        pairs([mixed_tree()], max_tokens=5, classify=lambda _: ["truncation"], drop=["truncation"])


def test_sft_statistics_by_hand():
    _, stats = sft()
    assert stats["trees"] == 4
    assert stats["by_status"] == {"budget": 2, "solved": 1, "too_easy": 1}
    assert (stats["solved"], stats["mixed"]) == (2, 1)
    assert stats["chains"] == 7
    assert stats["by_verdict"] == {"correct": 3, "wrong": 3, "no_answer": 1}
    assert stats["duplicates_removed"] == 1
    assert (stats["dropped_too_long"], stats["dropped_error_classes"]) == (0, {})
    assert (stats["rows"], stats["trees_used"]) == (2, 2)
    assert stats["per_tree"]["chains"]["mean"] == 7 / 4  # 5, 1, 1, 0
    assert stats["per_tree"]["chains"]["max"] == 5
    assert stats["per_tree"]["correct"]["median"] == 0.5  # 2, 1, 0, 0
    assert stats["per_tree"]["rows"]["mean"] == 0.5
    assert stats["tokens"]["correct"] == {
        "n": 3, "mean": 14 / 3, "min": 3, "q25": 4, "median": 5, "q75": 5.5, "max": 6,
    }  # 3, 5, 6  # fmt: skip
    assert stats["tokens"]["sft"]["mean"] == 5.5


def test_pair_statistics_by_hand():
    _, stats = pairs()
    assert (stats["rows"], stats["trees_used"]) == (4, 1)
    assert stats["choice"] == "shortest_prefix"
    assert stats["per_tree"]["pairs"]["mean"] == 1
    assert stats["tokens"]["chosen"]["mean"] == stats["tokens"]["rejected"]["mean"] == 4.5
    assert stats["shared_prefix_share"]["mean"] == pytest.approx((0 + 2 / 3 + 0 + 2 / 6) / 4)


def test_spread_of_nothing_has_no_mean():
    assert spread([]) == {"n": 0} | dict.fromkeys(["mean", "min", "q25", "median", "q75", "max"])


def test_the_table_is_aligned_and_tells_the_counts():
    table = format_stats(pairs()[1])
    facts, spreads = table.split("\n\n")
    assert "trees                 4 (budget 2, solved 1, too_easy 1)" in facts
    assert "duplicates removed    1" in facts
    assert "rows                  4 from 1 tree(s), bucket any" in facts
    assert "rejected by           shortest prefix" in facts
    assert len({len(line) for line in spreads.splitlines()}) == 1
    assert "shared prefix, % of chosen" in spreads
    assert "rejected by" not in format_stats(sft()[1])


def test_the_table_shows_a_verdict_that_no_chain_has():
    row = next(
        line
        for line in format_stats(sft([RIGHT_ONLY])[1]).splitlines()
        if line.startswith("tokens, no answer")
    )
    assert row.split() == ["tokens,", "no", "answer", "0", *["-"] * 6]


@pytest.mark.parametrize(
    ("build", "trees", "max_tokens", "reason"),
    [
        (sft, [], 100, "there are no trees"),
        (sft, [UNFINISHED], 100, "no finished chain"),
        (sft, [WRONG_ONLY], 100, "no correct chain"),
        (sft, [mixed_tree()], 2, "max_tokens=2 dropped 4 chain"),
        (pairs, [], 100, "there are no trees"),
        (pairs, [WRONG_ONLY], 100, "no correct chain"),
        (pairs, [RIGHT_ONLY, WRONG_ONLY], 100, "both a correct and a wrong chain"),
        (pairs, [mixed_tree()], 2, "max_tokens=2 dropped 4 chain"),
    ],
)
def test_an_empty_dataset_says_what_emptied_it(build, trees, max_tokens, reason):
    with pytest.raises(UserError, match=reason):
        build(trees, max_tokens=max_tokens)


@pytest.mark.parametrize("build", [sft, pairs])
def test_saved_rows_are_read_back_from_both_forms(build, tmp_path: Path, capfd):
    rows, stats = build()
    save(rows, tmp_path, stats=stats)
    assert datasets.load_from_disk(str(tmp_path / "dataset")).to_list() == rows
    parquet = datasets.Dataset.from_parquet(
        str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert parquet.to_list() == rows
    assert json.loads((tmp_path / "stats.json").read_text()) == stats
    assert "Saving" not in capfd.readouterr().err


def test_saving_twice_gives_the_same_bytes(tmp_path: Path):
    rows, stats = sft()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save(rows, tmp_path / name, stats=stats)
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")}
    assert len(files) >= 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
