"""What engines have answered, durable before it is used: nothing is asked for twice.

One SQLite file a run, with one writer. The search is a pure function of its completions, so a run
that starts again is answered from the journal up to where it was killed, and goes on from there.
"""

import hashlib
import json
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marco.engines.protocol import Completion, Engine, Request, Response
from marco.errors import UserError
from marco.failpoints import cross
from marco.termination import uninterrupted

APPLICATION_ID = 0x6D6A6E6C  # "mjnl": a SQLite file of another application is refused
SCHEMA = 3
_TABLES = """
CREATE TABLE run (id TEXT NOT NULL);
CREATE TABLE completions (
    key TEXT PRIMARY KEY,      -- (problem, path of the node, kind, sample index)
    problem TEXT NOT NULL,
    digest BLOB NOT NULL,      -- of the request and of the completions
    model TEXT NOT NULL,
    kind TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    completions TEXT NOT NULL  -- JSON: [[text, tokens, finish], ...]
);
CREATE INDEX of_problem ON completions (problem);
CREATE TABLE found (place INTEGER PRIMARY KEY, digest BLOB NOT NULL, line TEXT NOT NULL);
"""


class Journal:
    """The completions and findings of one run, in a file that only this process writes.

    `run` names the run; a process that holds the file is waited for `wait_s`. A commit survives a
    power cut, too, unless what it holds can be made again (`is_remade`). Raises UserError for a
    file that stays held, that is damaged, of another application or of another run, and where the
    disk refuses; nothing is overwritten.
    """

    def __init__(
        self, path: Path, *, run: str, wait_s: float = 0.0, is_remade: bool = False
    ) -> None:
        self.path, self.run, self.is_remade = path, run, is_remade
        with self._told():
            self.connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self.connection.close()
                raise

    def _open(self) -> None:
        execute = self.connection.execute
        # Kept until the end, so that a second writer is refused, and no shared memory is needed.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("BEGIN EXCLUSIVE")
        application, version = (
            execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        is_new = not execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        if is_new and application in (0, APPLICATION_ID):
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {SCHEMA}")
            for statement in _TABLES.strip().rstrip(";").split(";\n"):
                execute(statement)
            execute("INSERT INTO run VALUES (?)", (self.run,))
        execute("COMMIT")
        if not is_new and application == APPLICATION_ID and version != SCHEMA:
            raise UserError(f"{self.path} is of another version of this program: move it away")
        if not is_new and application != APPLICATION_ID:
            raise UserError(f"{self.path} is no journal of this program: move it away")
        execute("PRAGMA journal_mode = WAL")
        # NORMAL: whole after a power cut, but for the last commits, and a third of their cost.
        execute(f"PRAGMA synchronous = {'NORMAL' if self.is_remade else 'FULL'}")
        if (found := execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        if (owner := execute("SELECT id FROM run").fetchone()) != (self.run,):
            raise UserError(f"{self.path} belongs to another run ({owner and owner[0]}): move it")

    # Completions -------------------------------------------------------------------------------

    def find(self, request: Request) -> Response | None:
        """The response that was kept for a request; UserError if it was to another request."""
        with self._told():
            row = self.connection.execute(
                "SELECT digest, cached_tokens, completions FROM completions WHERE key = ?",
                (request.key,),
            ).fetchone()
        if row is None:
            return None
        digest, cached_tokens, text = row
        if digest != _digest(request, text):
            raise UserError(
                f"{self.path}: the entry {request.key} is damaged, or answers another request: "
                "move the file away to start anew"
            )
        return Response(
            key=request.key,
            completions=tuple(
                Completion(text=written, tokens=tokens, finish=finish)
                for written, tokens, finish in json.loads(text)
            ),
            cached_tokens=cached_tokens,
            is_replayed=True,
        )

    def keep(self, answered: Sequence[tuple[Request, Response]]) -> None:
        """Make responses durable, all in one commit: wholly there after it, or not at all."""
        with self._told(), self._transaction():
            self.connection.executemany(
                "INSERT INTO completions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(request, response) for request, response in answered],
            )

    def problems(self) -> set[str]:
        """The ids of the problems of which there is an entry."""
        with self._told():
            return {
                i for (i,) in self.connection.execute("SELECT DISTINCT problem FROM completions")
            }

    def take_over(self, other: Path) -> None:
        """Take the completions of another journal of the run, and remove it.

        Broken off, it is done again: an entry that is here already is the same one.
        """
        Journal(other, run=self.run).close()  # checked, and its log folded in
        with self._told():
            self.connection.execute("ATTACH ? AS other", (str(other),))
            try:
                with self._transaction():
                    self.connection.execute(
                        "INSERT OR IGNORE INTO completions SELECT * FROM other.completions"
                    )
            finally:
                self.connection.execute("DETACH other")
        other.unlink()

    # What was found ----------------------------------------------------------------------------

    def keep_found(self, place: int, line: str) -> None:
        """Keep what was found for an item, as its line: JSON with `status` and `usage`."""
        with self._told(), self._transaction():
            self.connection.execute(
                "INSERT INTO found VALUES (?, ?, ?)", (place, _line_digest(line), line)
            )

    def finished(self) -> dict[int, tuple[str, int]]:
        """The places of items that are finished: their status and generated tokens."""
        with self._told():
            rows = self.connection.execute(
                "SELECT place, json_extract(line, '$.status'),"
                " json_extract(line, '$.usage.completion_tokens') FROM found"
            )
            return {place: (status, tokens) for place, status, tokens in rows}

    def found(self) -> Iterator[str]:
        """The lines of all that was found, in the order of places; UserError for one that is
        damaged.
        """
        with self._told():
            rows = self.connection.execute("SELECT place, digest, line FROM found ORDER BY place")
            for place, digest, line in rows:
                if digest != _line_digest(line):
                    raise UserError(
                        f"{self.path}: what was found at place {place} is damaged: move the file "
                        "away, and it is made anew from the completions beside it"
                    )
                yield line

    # -------------------------------------------------------------------------------------------

    def costs(self) -> list[tuple[str, str, int, int, int, int]]:
        """(model, kind, requests, prompt tokens, of them cached, generated tokens), summed."""
        with self._told():
            return self.connection.execute(
                "SELECT model, kind, count(*), sum(prompt_tokens), sum(cached_tokens), sum(tokens)"
                " FROM completions GROUP BY model, kind ORDER BY model, kind"
            ).fetchall()

    def close(self) -> None:
        """Fold the log into the one file."""
        with self._told():
            self.connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            cross("journal.write.before")
            yield
            cross("journal.write.after")
            cross("journal.commit.before")
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        cross("journal.commit.after")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise AssertionError(f"{self.path}: kept twice ({error})") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UserError(f"{self.path} is held by another process: end it first") from error
            raise UserError(f"cannot write {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path} is damaged or no journal ({' '.join(str(error).split())}): "
                "move it away to start anew"
            ) from error


class JournaledEngine:
    """An engine whose responses are durable before anybody sees them.

    What the journal held at the start, or at `look_again`, is answered from it. All responses that
    an engine hands out together are committed together, so the busier it is, the fewer commits a
    response costs.
    """

    def __init__(self, engine: Engine, journal: Journal) -> None:
        self.engine, self.journal = engine, journal
        self.max_in_flight, self.honours_seeds = engine.max_in_flight, engine.honours_seeds
        self.asked: dict[str, Request] = {}
        self.known: list[Response] = []
        self.look_again()

    def look_again(self) -> None:
        """Answer from what the journal holds now."""
        # Only these are looked for: a key is asked for once in the life of a process.
        self.begun = self.journal.problems()

    def submit(self, request: Request) -> None:
        known = request.problem in self.begun and self.journal.find(request)
        if known:
            self.known.append(known)
            return
        self.asked[request.key] = request
        self.engine.submit(request)

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        known, self.known = self.known, []
        if known:
            return known  # without a wait for the engine: they may lead to requests for it
        with uninterrupted():
            if fresh := self.engine.poll(wait_s):
                self.journal.keep([(self.asked.pop(r.key), r) for r in fresh])
        return fresh

    def close(self) -> None:
        self.engine.close()


def _row(request: Request, response: Response) -> tuple[Any, ...]:
    text = json.dumps([(c.text, c.tokens, c.finish) for c in response.completions])
    return (
        request.key,
        request.problem,
        _digest(request, text),
        request.model,
        request.kind,
        len(request.prompt_ids),
        response.cached_tokens,
        sum(completion.tokens for completion in response.completions),
        text,
    )


def _line_digest(line: str) -> bytes:
    return hashlib.blake2b(line.encode(), digest_size=16).digest()


def _digest(request: Request, completions: str) -> bytes:
    """16 bytes that tell whether an entry is whole, and of this very request."""
    s = request.sampling
    sampling = (s.temperature, s.top_p, s.max_tokens)
    settings = (request.model, request.kind, request.n, request.stop, sampling)
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    digest.update(array("I", request.prompt_ids).tobytes())
    digest.update(completions.encode())
    return digest.digest()
