"""Published sets in the forms they are published in; all texts here are our own."""

import gzip
import json
import random
from pathlib import Path

import datasets
import pytest
import yaml

from marco.data import published
from marco.data.datasets import save
from marco.data.published import PublishedConfig, build_published, published_problems
from marco.data.statistics import format_stats
from marco.errors import UserError

from .trees import encode

CONF = Path(__file__).parents[2] / "conf" / "data"
SYSTEM = "Think between <|begin_of_thought|> and <|end_of_thought|>."
THOUGHT = (
    "<|begin_of_thought|>\n\nTwo and two.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\n\\boxed{4}\n\n<|end_of_solution|>"
)


def sky(question="2 + 2?", answer=THOUGHT, **more):
    turns = [{"from": "user", "value": question}, {"from": "assistant", "value": answer}]
    return {"system": SYSTEM, "conversations": turns, **more}


def openr1(problem="2 + 2?", generations=("<think>a</think>4", "<think>b</think>5"), marks=(1, 0)):
    messages = [
        {"role": "user", "content": problem},
        {"role": "assistant", "content": generations[0]},
    ]
    return {
        "problem": problem,
        "answer": "4",
        "generations": list(generations),
        "correctness_math_verify": [bool(mark) for mark in marks],
        "messages": messages,
    }


def config(file=None, name="sky_t1", **choices) -> PublishedConfig:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())["published"]
    return PublishedConfig(**values | {"file": file and str(file)} | choices)


def write(path: Path, rows) -> Path:
    path.write_text(json.dumps(rows))
    return path


def build(chosen, **choices):
    defaults = {
        "per_row": 1,
        "max_tokens": 1000,
        "classify": lambda text: (),
        "drop": (),
        "rng": random.Random(0),
    }
    return build_published(chosen, encode=encode, **{**defaults, **choices})


def test_sky_t1_as_it_is_published(tmp_path):
    rows, _ = build(config(write(tmp_path / "sky.json", [sky(), sky("3 + 3?")])))
    assert rows[0] == {
        "id": "sky_t1-1",
        "prompt": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": "2 + 2?"},
        ],
        "completion": [{"role": "assistant", "content": THOUGHT}],
        "node": 0,
        "bucket": "published",
        "tokens": len(THOUGHT),
        "parts": [],
    }
    assert [row["id"] for row in rows] == ["sky_t1-1", "sky_t1-2"]


def test_thoughts_may_be_put_in_think_tags_and_the_system_prompt_left_out(tmp_path):
    file = write(tmp_path / "sky.json", [sky()])
    (row,), _ = build(config(file, thoughts="think_tags"))
    assert row["completion"][0]["content"] == (
        "<think>\n\nTwo and two.\n\n</think>\n\n\n\n\\boxed{4}"
    )
    assert row["prompt"][0]["content"] == "Think between <think> and </think>."
    (row,), _ = build(config(file, system=False))
    assert [message["role"] for message in row["prompt"]] == ["user"]


def test_open_r1_takes_its_message_or_the_generations_that_are_marked_right(tmp_path):
    file = write(tmp_path / "r1.json", [openr1(), openr1("3?", ("3", "a3", "b3"), (0, 1, 1))])
    rows, stats = build(config(file, "openr1"))
    assert [row["completion"][0]["content"] for row in rows] == ["<think>a</think>4", "3"]
    assert stats["by_verdict"] == {"unmarked": 2}
    marked = config(file, "openr1", take="correct_generations")
    rows, stats = build(marked)
    assert [(row["id"], row["node"]) for row in rows] == [("openr1-1", 0), ("openr1-2", 1)]
    assert rows[1]["prompt"] == [{"role": "user", "content": "3?"}]
    assert [row["node"] for row in build(marked, per_row=2)[0]] == [0, 1, 2]
    assert (stats["solved"], stats["mixed"]) == (2, 2)
    assert stats["by_verdict"] == {"correct": 3, "wrong": 2}


def test_generations_need_no_messages(tmp_path):
    row = openr1()
    del row["messages"]
    file = write(tmp_path / "r1.json", [row])
    (found,), _ = build(config(file, "openr1", take="correct_generations"))
    assert found["prompt"] == [{"role": "user", "content": "2 + 2?"}]


def test_earlier_turns_are_part_of_the_prompt(tmp_path):
    turns = [("human", "2 + 2?"), ("gpt", "4"), ("human", "And 3 + 3?"), ("gpt", "6")]
    conversation = [{"from": "system", "value": "Be brief."}]
    conversation += [{"from": role, "value": text} for role, text in turns]
    (row,), _ = build(config(write(tmp_path / "turns.json", [{"conversations": conversation}])))
    roles = ["system", "user", "assistant", "user"]
    assert [message["role"] for message in row["prompt"]] == roles
    assert row["completion"][0]["content"] == "6"


def test_a_turn_may_have_the_columns_of_both_forms(tmp_path):
    both = [
        {"from": None, "value": None, "role": "user", "content": "2 + 2?"},
        {"from": "gpt", "value": "4", "role": None, "content": None},
    ]
    (row,), _ = build(config(write(tmp_path / "both.json", [{"conversations": both}])))
    assert row["prompt"] == [{"role": "user", "content": "2 + 2?"}]
    assert row["completion"] == [{"role": "assistant", "content": "4"}]


def test_every_file_form_gives_the_same_rows(tmp_path):
    rows = [sky(), sky("3 + 3?")]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    expected, _ = build(config(write(tmp_path / "list.json", rows)))
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "lines.jsonl").write_text(lines)
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    for name in ("lines.json", "lines.jsonl", "lines.jsonl.gz", "rows.parquet"):
        assert build(config(tmp_path / name))[0] == expected, name
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "README.md").write_text("x")
    for i, row in enumerate(rows):
        write(parts / f"part-{i}.json", [row])
    assert build(config(parts))[0] == expected


def test_the_hub_is_asked_for_what_the_config_names(monkeypatch):
    def load(*asked, **more):
        assert (asked, more) == (("open-r1/OpenR1-Math-220k", "default"), {"split": "train"})
        return [openr1()]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(build(config(name="openr1"))[0]) == 1

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(
        UserError, match="cannot load NovaSky.*data.published.file=FILE, or SKY_T1="
    ):
        build(config())


def test_filters_leave_out_and_count(tmp_path):
    rows = [sky("a?", "x" * 9), sky("a?", "x" * 9), sky("b?", "x" * 30), sky("c?", "loop loop")]
    rows.append(sky("d?", "x" * 9))  # the same chain to another prompt is no duplicate
    found, stats = build(
        config(write(tmp_path / "rows.json", rows)),
        max_tokens=20,
        classify=lambda text: ["repetition", "loop"] if "loop" in text else ["tame"],
        drop=["repetition"],
    )
    assert [row["id"] for row in found] == ["sky_t1-1", "sky_t1-5"]
    assert (stats["trees"], stats["chains"], stats["rows"], stats["trees_used"]) == (5, 4, 2, 2)
    assert (stats["duplicates_removed"], stats["dropped_too_long"]) == (1, 1)
    assert stats["dropped_error_classes"] == {"repetition": 1}
    assert stats["per_tree"]["chains"]["mean"] == 0.8
    assert stats["per_tree"]["rows"]["mean"] == 0.4
    assert stats["tokens"]["unmarked"] == {
        "n": 4, "mean": 14.25, "min": 9, "q25": 9, "median": 9, "q75": 14.25, "max": 30,
    }  # 9, 30, 9, 9  # fmt: skip
    assert stats["tokens"]["sft"]["mean"] == 9


def test_classes_are_not_looked_for_where_none_is_dropped(tmp_path):
    def classify(text):
        raise AssertionError("not asked for")

    file = write(tmp_path / "rows.json", [sky()])
    assert len(build(config(file), classify=classify)[0]) == 1


def test_so_many_rows_are_drawn_in_their_order(tmp_path):
    file = write(tmp_path / "rows.json", [sky(f"{i}?") for i in range(30)])
    chosen = config(file, rows=5)
    rows, stats = build(chosen)
    numbers = [int(row["id"].removeprefix("sky_t1-")) for row in rows]
    assert numbers == sorted(numbers) and len(numbers) == 5 and numbers != [1, 2, 3, 4, 5]
    assert (stats["rows"], stats["trees"], stats["per_tree"]["rows"]["n"]) == (5, 30, 30)
    assert build(chosen)[0] == rows
    assert build(chosen, rng=random.Random(1))[0] != rows


def test_rows_are_saved_and_shown_as_those_of_trees(tmp_path):
    rows, stats = build(config(write(tmp_path / "rows.json", [sky(), sky("3?")])))
    save(rows, tmp_path, stats=stats)
    assert datasets.load_from_disk(str(tmp_path / "dataset")).to_list() == rows
    assert json.loads((tmp_path / "stats.json").read_text()) == stats
    shown = format_stats(stats)
    assert "trees                 2 (published 2)" in shown
    assert "distinct chains       2 (unmarked 2)" in shown


def test_problems_are_told_without_the_sets_instruction(tmp_path):
    rows = [
        sky("Return your final response within \\boxed{}. What is 2 + 2?"),
        sky("What is 3?\nPlease reason step by step, and put your final answer within \\boxed{}."),
    ]
    found = published_problems(config(write(tmp_path / "rows.json", rows)))
    assert [problem.problem for problem in found] == ["What is 2 + 2?", "What is 3?"]


def turns(*told):
    return {"conversations": [{"from": role, "value": text} for role, text in told]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "x"}, "row 2: no list `conversations` or `messages`: it has `text`"),
        ({}, "row 2: no list .* it has no columns"),
        ({"conversations": "x"}, "row 2: no list `conversations`"),
        ("x", "row 2: not a JSON object"),
        ({"conversations": ["x"]}, r"row 2: conversations\[0\]: expected `from` and `value`"),
        (turns(("user", "a"), ("tool", "b")), r"row 2: conversations\[1\]: .*'tool': expected sys"),
        (
            turns(("user", "a"), ("user", "b")),
            "row 2: turn 2 of .* by the user: expected the assis",
        ),
        (turns(("assistant", "a")), "row 2: turn 1 of .* by the assistant: expected the user"),
        (sky() | turns(("system", "a"), ("user", "b")), "turn 1 .* by the system: expected"),
        (turns(("user", "a")), "row 2: `conversations` does not end with an assistant's turn"),
        (turns(), "row 2: `conversations` does not end with"),
        (turns(("user", "a"), ("gpt", " ")), r"row 2: conversations\[1\]: `value` .* is no text"),
        (turns(("user", None), ("gpt", "a")), r"row 2: conversations\[0\]: `value` .* is no text"),
        ({"conversations": [{"value": "a"}]}, "`from` .or `role`. is None"),
        (turns(("user", "a\ud800"), ("gpt", "b")), r"row 2: conversations\[0\]: .* half a surrog"),
        (sky() | {"system": "\udc00"}, "row 2: `system`: half a surrogate pair at character 0"),
    ],
)
def test_a_malformed_row_is_told_with_its_place(row, told, tmp_path):
    with pytest.raises(UserError, match=f"rows.json, {told}" if "row" in told[:3] else told):
        build(config(write(tmp_path / "rows.json", [sky(), row])))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"generations": None}, "row 1: no list `generations`"),
        ({"generations": []}, "row 1: no list `generations`"),
        ({"generations": ["a", 4]}, r"row 1: generations\[1\] is no text"),
        ({"correctness_math_verify": None}, "row 1: expected `correctness_math_verify`"),
        ({"correctness_math_verify": [True]}, "with a mark for each of its 2"),
        ({"correctness_math_verify": [True, "true"]}, r"row 1: the mark of .*\[1\] is 'true': exp"),
        ({"correctness_math_verify": [1, True]}, r"mark of .*\[0\] is 1: expected true or false"),
        ({"generations": ["a", "\ud83d"]}, r"row 1: generations\[1\]: half a surrogate pair"),
        ({"messages": None, "problem": None}, "row 1: `problem` is no text"),
    ],
)
def test_generations_that_cannot_be_read_are_told(change, told, tmp_path):
    file = write(tmp_path / "rows.json", [openr1() | change])
    with pytest.raises(UserError, match=told):
        build(config(file, "openr1", take="correct_generations"))


def test_files_that_are_none_are_told(tmp_path):
    (tmp_path / "half.json").write_text('[{"conversations": ')
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "bad.parquet").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name, told in {
        "half.json": "half.json: not JSON in UTF-8",
        "notes.txt": "expected a folder, or one of .json, .jsonl",
        "bad.parquet": "cannot read .*bad.parquet",
        "empty": "holds no file in one of the forms",
        "nowhere.json": "cannot read .*nowhere.json: No such file",
        "nowhere.parquet": "cannot read .*nowhere.parquet",
    }.items():
        with pytest.raises(UserError, match=told):
            build(config(tmp_path / name))


def test_an_empty_dataset_says_what_emptied_it(tmp_path):
    file = write(tmp_path / "rows.json", [sky(), sky("3?")])
    with pytest.raises(UserError, match="of 2 chains 2 are too long and 0 of an error class"):
        build(config(file), max_tokens=3)
    wrong = write(tmp_path / "wrong.json", [openr1(marks=(0, 0))])
    with pytest.raises(UserError, match="all 2 chains are marked wrong"):
        build(config(wrong, "openr1", take="correct_generations"))
    with pytest.raises(UserError, match="it has no rows"):
        build(config(write(tmp_path / "none.json", [])))


def test_both_sets_have_the_keys_of_trees():
    keys = [
        set(yaml.safe_load((CONF / f"{name}.yaml").read_text())) for name in ("sky_t1", "openr1")
    ]
    assert keys[0] == keys[1] >= set(yaml.safe_load((CONF / "tree.yaml").read_text()))
    assert published.BUCKET not in ("shortest", "medium", "longest", "any")
