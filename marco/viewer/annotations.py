"""Annotations as they are made: every one on disk before it is answered, none ever overwritten.

An SQLite file holds a log of what each annotator did, and the state that it leads to. Tabs and
servers may share it: a save names the state that its page showed, and is refused where another one
has come in between.
"""

import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marco.data.annotations import LABELS
from marco.errors import UserError

SCHEMA = 1
APPLICATION_ID = 0x6D616E6E  # "mann": a SQLite file of another application is refused
BUSY_S = 30.0  # another process that writes is waited for
_TABLES = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
CREATE TABLE secrets (token TEXT NOT NULL);
CREATE TABLE log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL UNIQUE, -- a save that is sent again, since its answer was lost, is one
    annotator TEXT NOT NULL, tab TEXT NOT NULL,
    tree TEXT NOT NULL, node INTEGER NOT NULL, chain TEXT NOT NULL,
    label TEXT, text TEXT,        -- both null: taken back
    at TEXT NOT NULL,
    before INTEGER,               -- the seq that was the state until then
    undoes INTEGER                -- the seq that this takes back
);
CREATE INDEX of_tab ON log (annotator, tab, seq);
CREATE INDEX of_undoes ON log (undoes);
CREATE TABLE states (
    annotator TEXT NOT NULL, tree TEXT NOT NULL, node INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (annotator, tree, node)
) WITHOUT ROWID;
"""
_STATE = "s.seq, l.annotator, l.tree, l.node, l.chain, l.label, l.text, l.at"
_JOIN = "FROM states s JOIN log l USING (seq)"

State = dict[str, Any]


class Changed(Exception):
    """The chain's state is not the one that the page showed; `state` is what it is now."""

    def __init__(self, state: State | None) -> None:
        super().__init__("changed elsewhere")
        self.state = state


class AnnotationStore:
    """The annotations of a folder of trees; usable from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            # Before SQLite does: the file holds the token, and is for its owner only.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._file = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._file.row_factory = sqlite3.Row
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot keep annotations in {path}: {error}: name another file with --annotations"
            ) from error

    def _open(self) -> None:
        execute = self._file.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")  # a save survives a power cut
        execute("BEGIN IMMEDIATE")
        if not execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            for statement in _TABLES.strip().rstrip(";").split(";\n"):
                execute(statement)
            execute("INSERT INTO secrets VALUES (?)", (secrets.token_urlsafe(32),))
        execute("COMMIT")
        ours = [
            execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        ]
        if ours != [APPLICATION_ID, SCHEMA]:
            raise UserError(f"{self.path} holds no annotations of this version: move it away")

    def close(self) -> None:
        self._file.close()

    @property
    def token(self) -> str:
        """What a page must show to write; kept, so that a server that starts again takes it."""
        with self._lock:
            return self._file.execute("SELECT token FROM secrets").fetchone()[0]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file
                self._file.execute("COMMIT")
            except BaseException:
                self._file.execute("ROLLBACK")
                raise

    def save(
        self,
        *,
        request: str,
        annotator: str,
        tab: str,
        tree: str,
        node: int,
        chain: str,
        label: str | None,
        text: str | None,
        seen: int | None,
    ) -> State:
        """Set what an annotator says of a chain; `seen` is the state's `seq` that the page showed.

        A `request` that was saved already is answered with the state. Raises Changed.
        """
        assert label is None or label in LABELS, "checked by the server"
        with self._writing() as file:
            current = self._state(annotator, tree, node)
            if file.execute("SELECT 1 FROM log WHERE request = ?", (request,)).fetchone():
                assert current is not None, "it was saved"
                return current
            if (current["seq"] if current else None) != seen:
                raise Changed(current)
            values = (request, annotator, tab, tree, node, chain, label, text)
            self._append(*values, before=seen, undoes=None)
            state = self._state(annotator, tree, node)
            assert state is not None
            return state

    def undo(self, *, request: str, annotator: str, tab: str) -> State | None:
        """Take back the last thing that an annotator did in a tab; None where there is nothing.

        Raises Changed where another tab has since set the same chain.
        """
        with self._writing() as file:
            done = file.execute(
                "SELECT tree, node FROM log WHERE request = ?", (request,)
            ).fetchone()
            if done:
                return self._state(annotator, done["tree"], done["node"])
            last = file.execute(
                "SELECT * FROM log l WHERE annotator = ? AND tab = ? AND undoes IS NULL"
                " AND NOT EXISTS (SELECT 1 FROM log u WHERE u.undoes = l.seq)"
                " ORDER BY seq DESC LIMIT 1",
                (annotator, tab),
            ).fetchone()
            if last is None:
                return None
            chain = last["tree"], last["node"], last["chain"]
            current = self._state(annotator, *chain[:2])
            if not current or not self._stems_from(current["seq"], last["seq"]):
                raise Changed(current)
            before = file.execute(
                "SELECT label, text FROM log WHERE seq = ?", (last["before"],)
            ).fetchone()
            label, text = (before["label"], before["text"]) if before else (None, None)
            self._append(
                request, annotator, tab, *chain, label, text,
                before=current["seq"], undoes=last["seq"],
            )  # fmt: skip
            return self._state(annotator, *chain[:2])

    def _stems_from(self, seq: int, done: int) -> bool:
        """Whether the state `seq` is that of `done`, or what taking back a later one left of it."""
        while seq != done:
            row = self._file.execute("SELECT undoes FROM log WHERE seq = ?", (seq,)).fetchone()
            if row["undoes"] is None:
                return False
            undone = self._file.execute("SELECT before FROM log WHERE seq = ?", (row["undoes"],))
            seq = undone.fetchone()["before"]
            if seq is None:
                return False
        return True

    def _append(self, *values: Any, before: int | None, undoes: int | None) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        seq = self._file.execute(
            "INSERT INTO log (request, annotator, tab, tree, node, chain, label, text, at, before,"
            " undoes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, at, before, undoes),
        ).lastrowid
        _, annotator, _, tree, node, *_ = values
        self._file.execute(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)", (annotator, tree, node, seq)
        )

    def _state(self, annotator: str, tree: str, node: int) -> State | None:
        row = self._file.execute(
            f"SELECT {_STATE} {_JOIN} WHERE s.annotator = ? AND s.tree = ? AND s.node = ?",
            (annotator, tree, node),
        ).fetchone()
        return dict(row) if row else None

    def states(self, annotator: str, tree: str) -> list[State]:
        """What an annotator has said of a tree's chains, what was taken back included."""
        with self._lock:
            rows = self._file.execute(
                f"SELECT {_STATE} {_JOIN} WHERE s.annotator = ? AND s.tree = ?", (annotator, tree)
            ).fetchall()
        return [dict(row) for row in rows]

    def labelled(self, annotator: str) -> set[tuple[str, int]]:
        """The chains that an annotator has labelled: tree id and node."""
        with self._lock:
            rows = self._file.execute(
                f"SELECT l.tree, l.node {_JOIN} WHERE s.annotator = ? AND label IS NOT NULL",
                (annotator,),
            ).fetchall()
        return {(row["tree"], row["node"]) for row in rows}

    def counts(self, annotator: str) -> dict[str, int]:
        """An annotator's chains by label, and those with an edited text."""
        with self._lock:
            rows = self._file.execute(
                f"SELECT label, count(*) AS n, count(text) AS edited {_JOIN}"
                " WHERE s.annotator = ? AND label IS NOT NULL GROUP BY label",
                (annotator,),
            ).fetchall()
        found = dict.fromkeys(LABELS, 0) | {row["label"]: row["n"] for row in rows}
        return found | {"edited": sum(row["edited"] for row in rows)}

    def export(self) -> Iterator[str]:
        """All annotations as JSON Lines, as `marco.data.annotations` reads them."""
        with self._lock:
            rows = self._file.execute(
                "SELECT l.tree, l.node, l.chain, l.annotator, l.label, l.text, l.at"
                f" {_JOIN} WHERE label IS NOT NULL ORDER BY s.annotator, l.seq"
            ).fetchall()
        for row in rows:
            yield json.dumps(dict(row)) + "\n"
