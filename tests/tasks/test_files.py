"""Files that people bring: their forms, and what is wrong with them, with its place."""

import gzip
import json
from pathlib import Path

import pytest

from marco.errors import UserError
from marco.tasks.files import read_rows

ROWS = [{"id": "a", "problem": "1,\n2"}, {"id": "b", "problem": "é"}]


def test_every_form_holds_the_same_rows(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    forms = {
        "a.jsonl": lines.encode(),
        "b.jsonl.gz": gzip.compress(lines.encode()),
        "c.json": json.dumps(ROWS, indent=1).encode(),
        "d.json": lines.encode(),
        "e.csv": 'id,problem\na,"1,\n2"\nb,é\n'.encode(),
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
