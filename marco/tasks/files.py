"""Reading the files of problems and responses that people bring, and data sets of the hub."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marco.errors import UserError
from marco.tasks.problem import Problem

Rows = list[tuple[int, dict[str, Any]]]


def read_rows(path: Path) -> Rows:
    """The rows of a JSON Lines file, of a `.csv`, or of a `.json` that is one list; `.gz` of each.

    Each with its line number, in a list its place.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".json") and _text(path).lstrip().startswith("["):
        return _read_list(path)
    return _read_csv(path) if name.endswith(".csv") else read_jsonl(path)


def load_rows(file: str | None, *, hub: str, subset: str | None, split: str, key: str) -> Rows:
    """The rows of a local file where one is given, else of a data set on the hub.

    UserError names `key`, the config's key for a local file, where the hub does not answer.
    """
    if file is not None:
        return read_rows(Path(file))
    from datasets import load_dataset

    try:
        rows = load_dataset(hub, subset, split=split)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(
            f"cannot load {hub} ({type(error).__name__}): give a local file with {key}=FILE "
            "(for another task than `task`: +task_overrides.<name>. in place of task.)"
        ) from error
    return [(number, dict(row)) for number, row in enumerate(rows, 1)]


def distinct(problems: list[Problem], source: str) -> list[Problem]:
    """The problems; UserError where two share an id, by which trees and answers are told apart."""
    counts = Counter(whole(problem.id, source) for problem in problems)
    if twice := [id for id, n in counts.items() if n > 1]:
        raise UserError(f"{source}: {len(twice)} ids occur more than once, first {twice[0]!r}")
    return problems


def id_of(row: Mapping[str, Any], *names: str) -> str | None:
    """A row's id: the first of the columns that holds one; None where all are missing or null."""
    given = (row.get(name) for name in names)
    return next((str(id) for id in given if id is not None and str(id).strip()), None)


def text_of(row: dict[str, Any] | Any, names: tuple[str, ...], number: int, source: str) -> str:
    """The first of the columns that is there, which must be text that says something."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if not isinstance(value, str) or not value.strip():
        wanted = " (or ".join(f"`{name}`" for name in names) + ")" * (len(names) - 1)
        raise UserError(f"{source}, line {number}: no {wanted}")
    return whole(value, f"{source}, line {number}")


def whole(text: str, where: str) -> str:
    """The text; UserError where it holds half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: half a surrogate pair at character {error.start}") from error
    return text


def read_jsonl(path: Path) -> Rows:
    """The objects of a JSON Lines file with their line numbers; blank lines are passed over.

    Raises UserError for a missing file, for text that is not UTF-8, and for a line that is not a
    JSON object (which one).
    """
    rows = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not JSON ({_reason(error)})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object")
        rows.append((number, row))
    if not rows:
        raise UserError(f"{path} is empty")
    return rows


def _read_list(path: Path) -> Rows:
    try:
        rows = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path}, line {line}: not JSON ({_reason(error)})") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {number}: not a JSON object")
    if not rows:
        raise UserError(f"{path} is empty")
    return list(enumerate(rows, 1))


def _read_csv(path: Path) -> Rows:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    if not rows:
        raise UserError(f"{path} is empty")
    return rows


def _reason(error: Exception) -> str:
    return getattr(error, "msg", "a number or a nesting beyond what is read")


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a gzip file ({error})") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
