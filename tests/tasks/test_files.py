"""Files that people bring: their forms, and what is wrong with them, with its place."""

import gzip
import json
from pathlib import Path

import pytest

from marco.errors import UserError
from marco.tasks.files import id_of, read_rows
from tests.tasks import (
    test_aime,
    test_arithmetic,
    test_blocksworld,
    test_gsm8k,
    test_ifeval,
    test_letter_count,
    test_math,
    test_multi_if,
)

INSTRUCTIONS = json.dumps([{"id": "punctuation:no_comma", "kwargs": {}}])
TASKS = {
    "aime": (test_aime.task, "5"),
    "arithmetic": (test_arithmetic.task, "5"),
    "blocksworld": (test_blocksworld.task, test_blocksworld.GOLD),
    "gsm8k": (test_gsm8k.task, "5"),
    "ifeval": (test_ifeval.task, INSTRUCTIONS),
    "letter_count": (test_letter_count.task, "5"),
    "math": (test_math.task, "5"),
    "multi_if": (test_multi_if.task, INSTRUCTIONS),
}

ROWS = [{"id": "a", "problem": "1,\n2"}, {"id": "b", "problem": "é"}]


def test_every_form_holds_the_same_rows(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    forms = {
        "a.jsonl": lines.encode(),
        "b.jsonl.gz": gzip.compress(lines.encode()),
        "c.json": json.dumps(ROWS, indent=1).encode(),
        "d.json": lines.encode(),
        "e.csv": 'id,problem\na,"1,\n2"\nb,é\n'.encode(),
        "f.csv": 'id,problem\na,"1,\n2"\nb,é\n'.encode("utf-8-sig"),
        "g.csv.gz": gzip.compress('id,problem\na,"1,\n2"\nb,é\n'.encode()),
        "h.json.gz": gzip.compress(json.dumps(ROWS).encode()),
        "i.json": json.dumps(ROWS).encode("utf-8-sig"),
        "j.jsonl": lines.encode("utf-8-sig"),
    }
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        assert [row for _, row in read_rows(tmp_path / name)] == ROWS, name


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b'{"id": 1}\n{', "line 2: not JSON"),
        ("a.jsonl", b"[1]", "line 1: not a JSON object"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.jsonl", b"\xff", "not UTF-8"),
        ("a.jsonl.gz", b"plain", "not a gzip file"),
        ("a.json", b'[{"id": 1}, 2]', "row 2: not a JSON object"),
        ("a.json", b'[{"id": 1},\n{', "line 2: not JSON"),
        ("a.json", b"[]", "is empty"),
        ("a.jsonl", b'{"id": ' + b"1" * 5000 + b"}", "line 1: not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl.gz", gzip.compress(b"x" * 99)[:-20] + b"y" * 20, "not a gzip file"),
        ("a.csv", b"id,problem\n", "is empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, name, data, told) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told):
        read_rows(tmp_path / name)
    with pytest.raises(UserError, match="cannot read .*nowhere"):
        read_rows(tmp_path / "nowhere" / name)


def test_the_first_id_that_is_one() -> None:
    assert id_of({"id": None, "key": "a"}, "id", "key") == "a"
    assert id_of({"id": 0, "key": "a"}, "id", "key") == "0"
    assert id_of({"id": " "}, "id") is None and id_of({}, "id") is None


@pytest.mark.parametrize("name", TASKS)
def test_a_null_id_is_none(tmp_path: Path, name: str) -> None:
    """Such problems are numbered, as those without an id."""
    make, gold = TASKS[name]
    rows = [{"id": None, "problem": "1?", "answer": gold}, {"problem": "2?", "answer": gold}]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [problem.id for problem in make().read(file)] == [f"{name}-0", f"{name}-1"]
    if name != "arithmetic":  # it has no files of its own
        if name == "aime":
            found = make({"2024": str(file)}, years=[2024])
        else:
            found = make(test_file=str(file))
        by_split = {"gsm8k": "gsm8k-test", "math": "math-test", "aime": "aime-2024"}
        prefix = by_split.get(name, name)
        assert [p.id for p in found.problems("test")] == [f"{prefix}-0", f"{prefix}-1"]


def test_without_ids_the_head_of_a_csv_and_blank_lines_are_counted(tmp_path: Path) -> None:
    files = {
        "a.csv": "question,answer\n1?,5\n2?,5\n",
        "b.jsonl": '\n{"problem": "1?", "answer": 5}\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ids = [[p.id for p in test_gsm8k.task().read(tmp_path / name)] for name in files]
    assert ids == [["gsm8k-1", "gsm8k-2"], ["gsm8k-1"]]
