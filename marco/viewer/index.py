"""The index beside a file of trees: what the list shows, filters and sorts by, and where trees lie.

One SQLite file, built once and then read only. It knows the size and time of the file that it was
made from, and is made anew when that has changed.
"""

import multiprocessing
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from marco.disk import sync
from marco.errors import UserError
from marco.evaluation.error_classes import ErrorClassesConfig, classify
from marco.manifest import hidden
from marco.progress import Progress
from marco.search.tree import Node, Tree, parse_tree, trees_file
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG

SCHEMA = 1
BATCH = 64  # trees that a worker is handed at once
REMEMBERED = 200  # filters whose counts are remembered, as pages are turned
POOLED_BYTES = 10e6  # of trees; fewer are sooner done than processes are started
_TABLES = """
CREATE TABLE made (schema INTEGER, bytes INTEGER, changed_ns INTEGER);
CREATE TABLE trees (
    n INTEGER PRIMARY KEY,     -- its line, from 0 on
    id TEXT, status TEXT, pattern TEXT,
    nodes INTEGER, tokens INTEGER, rollouts INTEGER,
    chains INTEGER, correct INTEGER, wrong INTEGER, no_answer INTEGER, solved_share REAL,
    shortest INTEGER, longest INTEGER, -- tokens of its chains
    kinds TEXT, error_classes TEXT,    -- names between spaces
    start INTEGER, bytes INTEGER
);
CREATE TABLE problems (n INTEGER PRIMARY KEY, problem TEXT, gold TEXT);
CREATE TABLE chains (
    n INTEGER, node INTEGER, verdict TEXT, tokens INTEGER, PRIMARY KEY (n, node)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (text, content = '');
"""
_INDEXES = """
CREATE INDEX of_id ON trees (id);
CREATE INDEX of_status ON trees (status, pattern);
"""
Sort = Literal[
    "n", "id", "status", "pattern", "nodes", "tokens", "rollouts", "chains", "correct", "wrong",
    "no_answer", "solved_share", "shortest", "longest",
]  # fmt: skip


class Filter(BaseModel):
    """What the list is narrowed down to; a text's words must all occur in a tree, in any order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(default="", max_length=400)
    status: str = ""
    pattern: str = ""
    verdict: Literal["", "correct", "wrong", "no_answer", "mixed"] = ""
    kind: str = ""
    error_class: str = ""

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition on `trees`, and its values."""
        conditions, values = ["1"], {}
        for name in ("status", "pattern"):
            if value := getattr(self, name):
                conditions.append(f"{name} = :{name}")
                values[name] = value
        for name, column in (("kind", "kinds"), ("error_class", "error_classes")):
            if value := getattr(self, name):
                conditions.append(f"instr({column}, :{name})")
                values[name] = f" {value} "
        if self.verdict:
            kinds = (CORRECT, WRONG) if self.verdict == "mixed" else (self.verdict,)
            conditions += [f"{kind} > 0" for kind in kinds]
        if words := re.findall(r"\w+", self.text):
            # Each in quotes, so that none is a word of the query language; the last may go on.
            values["words"] = " ".join(f'"{word}"' for word in words) + "*"
            condition = "n IN (SELECT rowid FROM words WHERE words MATCH :words)"
            conditions.append(f"({condition} OR id = :text)")
            values["text"] = self.text.strip()
        elif self.text.strip():
            conditions.append("0")  # signs only: they are not searched
        return " AND ".join(conditions), values


@dataclass(frozen=True)
class Chain:
    """A distinct finished chain: the tree's line, and the node that it ends in."""

    n: int
    node: int


class Index:
    """The index of a file of trees, and the trees; usable from several threads."""

    def __init__(self, trees: Path, path: Path) -> None:
        self.trees, self.path = trees, path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._counts: dict[Filter, dict[str, Any]] = {}

    @classmethod
    def open(cls, folder: Path, *, path: Path | None = None) -> "Index":
        """The index of a folder's trees, made first where there is none, or an outdated one.

        It lies beside the folder, at `path` where given; UserError where neither can be written.
        """
        trees = trees_file(folder)
        path = path or beside(folder, "index.sqlite")
        if not _is_current(path, trees):
            _build(trees, path)
        return cls(trees, path)

    def close(self) -> None:
        for connection in self._opened:
            connection.close()

    @property
    def _connection(self) -> sqlite3.Connection:
        """This thread's."""
        if not hasattr(self._local, "connection"):
            uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            self._opened.append(connection)
            self._local.connection = connection
        return self._local.connection

    def _rows(self, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(row) for row in self._connection.execute(query, values)]

    def page(
        self, filter: Filter, *, sort: Sort, descending: bool, offset: int, limit: int
    ) -> list[dict[str, Any]]:
        """Some trees of a filter in an order, as rows of the list; ties in the trees' order."""
        where, values = filter.where()
        order = f"{sort} {'DESC' if descending else 'ASC'}, n"
        numbers = self._rows(  # by themselves: what is sorted is small
            f"SELECT n FROM trees WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset",
            values | {"limit": limit, "offset": offset},
        )
        query = "SELECT * FROM trees JOIN problems USING (n) WHERE n = :n"
        return [row for number in numbers for row in self._rows(query, number)]

    def counts(self, filter: Filter) -> dict[str, Any]:
        """Trees of a filter, by status too, and their chains by verdict; remembered."""
        if filter not in self._counts:
            if len(self._counts) >= REMEMBERED:
                self._counts.clear()
            self._counts[filter] = self._count(filter)
        return self._counts[filter]

    def _count(self, filter: Filter) -> dict[str, Any]:
        where, values = filter.where()
        rows = self._rows(
            "SELECT status, count(*) AS trees, sum(chains) AS chains, sum(correct) AS correct,"
            " sum(wrong) AS wrong, sum(no_answer) AS no_answer"
            f" FROM trees WHERE {where} GROUP BY status ORDER BY status",
            values,
        )
        total = {
            name: sum(row[name] for row in rows)
            for name in ("trees", "chains", CORRECT, WRONG, NO_ANSWER)
        }
        return total | {"by_status": {row["status"]: row["trees"] for row in rows}}

    def choices(self) -> dict[str, list[str]]:
        """What can be filtered by: each name that occurs."""
        found = {
            name: [row[name] for row in self._rows(f"SELECT DISTINCT {name} FROM trees", {})]
            for name in ("status", "pattern", "kinds", "error_classes")
        }
        for name in ("kinds", "error_classes"):  # several in one
            found[name] = list({part for names in found[name] for part in names.split()})
        return {name: sorted(values) for name, values in found.items()}

    def read(self, n: int) -> Tree | None:
        """The n-th tree, from 0 on; None beyond the last."""
        found = self._rows("SELECT start, bytes FROM trees WHERE n = :n", {"n": n})
        if not found:
            return None
        with self.trees.open("rb") as file:
            file.seek(found[0]["start"])
            line = file.read(found[0]["bytes"])
        return parse_tree(line, where=f"{self.trees}, line {n + 1}")

    def number(self, id: str) -> int | None:
        """The line of the tree with this id."""
        found = self._rows("SELECT n FROM trees WHERE id = :id LIMIT 1", {"id": id})
        return found[0]["n"] if found else None

    def id(self, n: int) -> str:
        """The id of the n-th tree."""
        return self._rows("SELECT id FROM trees WHERE n = :n", {"n": n})[0]["id"]

    def chains(self, filter: Filter, *, after: Chain, backwards: bool = False) -> Iterator[Chain]:
        """The chains of a filter's trees after one of them, or before it, the nearest first."""
        where, values = filter.where()
        sign, order = ("<", "DESC") if backwards else (">", "ASC")
        cursor = self._connection.execute(
            f"SELECT n, node FROM chains WHERE (n, node) {sign} (:after_n, :after_node)"
            f" AND n IN (SELECT n FROM trees WHERE {where}) ORDER BY n {order}, node {order}",
            values | {"after_n": after.n, "after_node": after.node},
        )
        with closing(cursor):
            for row in cursor:
                yield Chain(row["n"], row["node"])


def beside(folder: Path, name: str) -> Path:
    """Where what the viewer keeps of a folder of trees lies: beside it, so that its own files,
    which stages know by their content, stay as they are.
    """
    return hidden(folder.absolute(), name)


def _is_current(path: Path, trees: Path) -> bool:
    if not path.is_file():
        return False
    stat = trees.stat()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            made = file.execute("SELECT schema, bytes, changed_ns FROM made").fetchone()
    except sqlite3.Error:
        return False
    return made == (SCHEMA, stat.st_size, stat.st_mtime_ns)


def _build(trees: Path, path: Path) -> None:
    """Write the index to a temporary name, and put it in place when it is whole."""
    stat = trees.stat()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(part, isolation_level=None)) as file:
            file.execute("PRAGMA journal_mode = OFF")
            file.execute("PRAGMA synchronous = OFF")
            file.executescript(_TABLES)
            file.execute("BEGIN")
            _fill(file, trees, total=stat.st_size)
            file.execute(
                "INSERT INTO made VALUES (?, ?, ?)", (SCHEMA, stat.st_size, stat.st_mtime_ns)
            )
            file.execute("COMMIT")
            file.executescript(_INDEXES + "ANALYZE;")
        sync(part)
        part.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"cannot write the index {path}: {error}: name another with --index"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _fill(file: sqlite3.Connection, trees: Path, *, total: int) -> None:
    progress = Progress("index", round(total / 1e6), "MB")
    done = count = 0
    for rows in _summaries(trees, total):
        for row in rows:
            done += row["tree"]["bytes"]
            count += 1
            names = ", ".join(f":{name}" for name in row["tree"])
            file.execute(f"INSERT INTO trees VALUES ({names})", row["tree"])
            file.execute("INSERT INTO problems VALUES (:n, :problem, :gold)", row["problem"])
            file.executemany("INSERT INTO chains VALUES (?, ?, ?, ?)", row["chains"])
            file.execute(
                "INSERT INTO words (rowid, text) VALUES (?, ?)", (row["tree"]["n"], row["text"])
            )
        progress.update(round(done / 1e6), share=done / total, trees=count)
    progress.close()


Line = tuple[int, int, bytes]  # its number from 0 on, where it starts in the file, and what it says


def _summaries(trees: Path, total: int) -> Iterator[list[dict[str, Any]]]:
    """The summaries of all trees in their order, some at a time."""
    batches = _batches(trees)
    if total < POOLED_BYTES:
        yield from (_summarise_all(str(trees), batch) for batch in batches)
        return
    workers = os.cpu_count() or 1
    # Spawned: they need none of what a stage's server has imported.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(_summarise_all, str(trees), b) for b in islice(batches, 4 * workers)]
        while pending:  # a bounded number at once: the trees may not fit into memory
            yield pending.pop(0).result()
            pending += [pool.submit(_summarise_all, str(trees), b) for b in islice(batches, 1)]


def _batches(trees: Path) -> Iterator[list[Line]]:
    def lines() -> Iterator[Line]:
        start = 0
        with trees.open("rb") as file:
            for n, line in enumerate(file):
                yield n, start, line
                start += len(line)

    every = lines()
    while batch := list(islice(every, BATCH)):
        yield batch


def _summarise_all(path: str, lines: Iterable[Line]) -> list[dict[str, Any]]:
    config = error_classes_config()
    return [
        _summarise(parse_tree(line, where=f"{path}, line {n + 1}"), n, start, len(line), config)
        for n, start, line in lines
    ]


def _summarise(
    tree: Tree, n: int, start: int, size: int, config: ErrorClassesConfig
) -> dict[str, Any]:
    """What the index holds of a tree."""
    chains = distinct_chains(tree)
    verdicts = [leaf.verdict for _, leaf, _ in chains]
    tokens = [own for _, _, own in chains]
    classes = {name for text, leaf, _ in chains for name in chain_classes(text, leaf, config)}
    kinds = {node.kind for node in tree.nodes[1:]}
    correct = verdicts.count(CORRECT)
    row = {
        "n": n,
        "id": tree.id,
        "status": tree.status,
        "pattern": tree.pattern,
        "nodes": len(tree.nodes),
        "tokens": tree.usage.get("completion_tokens"),
        "rollouts": tree.usage.get("rollouts"),
        "chains": len(chains),
        "correct": correct,
        "wrong": verdicts.count(WRONG),
        "no_answer": verdicts.count(NO_ANSWER),
        "solved_share": correct / len(chains) if chains else None,
        "shortest": min(tokens, default=None),
        "longest": max(tokens, default=None),
        "kinds": f" {' '.join(sorted(kinds))} ",
        "error_classes": f" {' '.join(sorted(classes))} ",
        "start": start,
        "bytes": size,
    }
    texts = {tree.id, tree.problem, str(tree.gold), *(node.text for node in tree.nodes)}
    return {
        "tree": row,
        "problem": {"n": n, "problem": tree.problem, "gold": str(tree.gold)},
        "chains": [(n, leaf.id, leaf.verdict, own) for _, leaf, own in chains],
        "text": "\n".join(texts),
    }


def distinct_chains(tree: Tree) -> list[tuple[str, Node, int]]:
    """A tree's finished chains without duplicates: text, last node and tokens."""
    texts, tokens = {0: ""}, {0: 0}
    found: dict[str, tuple[str, Node, int]] = {}
    for node in tree.nodes[1:]:
        parent = node.parent or 0
        texts[node.id] = texts[parent] + node.text
        tokens[node.id] = tokens[parent] + node.tokens
        if node.verdict is not None:
            found.setdefault(texts[node.id], (texts[node.id], node, tokens[node.id]))
    return list(found.values())


def error_classes_config() -> ErrorClassesConfig:
    """The thresholds of `conf/error_classes/default.yaml`."""
    from marco.config import ROOT  # the start of the viewer does not wait for it

    path = ROOT / "conf" / "error_classes" / "default.yaml"
    return ErrorClassesConfig(**yaml.safe_load(path.read_text(encoding="utf-8")))


def chain_classes(text: str, leaf: Node, config: ErrorClassesConfig) -> list[str]:
    """The error classes of a finished chain."""
    verdict = leaf.verdict or NO_ANSWER
    found = classify(text, finish=leaf.finish, verdict=verdict, simple=False, config=config)
    return [finding.name for finding in found]
