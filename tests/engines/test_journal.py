"""The journal: durable before it is used, whole or refused, with one writer."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.engines.journal import Journal, JournaledEngine
from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.engines.scripted import ScriptedEngine
from marco.errors import UserError


def request(key: str = "p/0/thinking.0/0", **changes: Any) -> Request:
    values: dict[str, Any] = {
        "problem": "p",
        "model": "m",
        "kind": "thinking",
        "prompt_ids": (1, 2, 3),
        "n": 2,
        "stop": ("</thinking>",),
        "sampling": Sampling(temperature=0.8, top_p=0.9, max_tokens=9),
    }
    return Request(key=key, **values | changes)


def response(key: str = "p/0/thinking.0/0", *texts: str, cached: int = 0) -> Response:
    completions = tuple(Completion(text=t, tokens=len(t), finish="stop") for t in texts)
    return Response(key=key, completions=completions, cached_tokens=cached)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "completions.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path, run="r")
    yield journal
    journal.close()


def test_what_was_kept_is_found_again_and_nothing_else(path: Path) -> None:
    kept = response("a", "so", "</thinking> \u2028 \ud800 €", cached=2)
    journal = Journal(path, run="r")
    journal.keep([(request("a"), kept), (request("b"), response("b", "x", ""))])
    journal.close()
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # the log is folded in
    journal = Journal(path, run="r")
    found = journal.find(request("a"))
    assert found is not None and found.completions == kept.completions
    assert (found.cached_tokens, found.is_replayed) == (2, True)
    assert journal.find(request("c")) is None
    assert journal.costs() == [("m", "thinking", 2, 6, 2, len("so") + 17 + 1)]
    journal.close()


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"kind": "answer"},
        {"prompt_ids": (1, 2)},
        {"prompt_ids": (1, 2, 4)},
        {"n": 3},
        {"stop": ()},
        {"sampling": Sampling(temperature=0.7, top_p=0.9, max_tokens=9)},
    ],
)
def test_an_entry_answers_the_very_request_it_was_kept_for(
    journal: Journal, other: dict[str, Any]
) -> None:
    journal.keep([(request("a"), response("a", "x", "y"))])
    with pytest.raises(UserError, match="the entry a is damaged, or answers another request"):
        journal.find(request("a", **other))


def test_a_key_is_kept_once(journal: Journal) -> None:
    journal.keep([(request("a"), response("a", "x"))])
    with pytest.raises(AssertionError, match="kept twice"):
        journal.keep([(request("b"), response("b", "y")), (request("a"), response("a", "z"))])
    assert journal.find(request("b")) is None  # all of a commit, or nothing


def test_a_journal_has_one_writer(path: Path, journal: Journal) -> None:
    with pytest.raises(UserError, match="held by another process"):
        Journal(path, run="r")


def test_a_journal_of_another_run_is_refused_and_left_as_it_is(path: Path) -> None:
    Journal(path, run="r").close()
    before = path.read_bytes()
    with pytest.raises(UserError, match="belongs to another run"):
        Journal(path, run="s")
    assert path.read_bytes() == before


def _text(path: Path) -> None:
    path.write_text("dear diary " * 1000)


def _of_another_application(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()


def _of_another_schema(path: Path) -> None:
    Journal(path, run="r").close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def _torn(path: Path) -> None:
    journal = Journal(path, run="r")
    journal.keep([(request(f"k{i}"), response(f"k{i}", "x" * 900)) for i in range(100)])
    journal.close()
    path.write_bytes(path.read_bytes()[:-20_000])


def _overwritten_in_the_middle(path: Path) -> None:
    _torn(path)
    path.unlink()
    journal = Journal(path, run="r")
    journal.keep([(request(f"k{i}"), response(f"k{i}", "x" * 900)) for i in range(100)])
    journal.close()
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 4096] = bytes(4096)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [_text, _of_another_application, _of_another_schema, _torn, _overwritten_in_the_middle],
)
def test_torn_and_foreign_files_are_refused_and_never_overwritten(path: Path, spoil: Any) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{path.name}.* move it away"):
        Journal(path, run="r")
    assert path.read_bytes() == before


def test_a_changed_letter_in_an_entry_is_noticed(path: Path) -> None:
    journal = Journal(path, run="r")
    journal.keep([(request("a"), response("a", "forty-two"))])
    journal.close()
    path.write_bytes(path.read_bytes().replace(b"forty-two", b"forty-six"))
    journal = Journal(path, run="r")
    with pytest.raises(UserError, match="the entry a is damaged"):
        journal.find(request("a"))
    journal.close()


def test_a_torn_log_loses_what_was_not_acknowledged_only(path: Path, tmp_path: Path) -> None:
    """The log as a power cut may leave it: its last commit wholly or partly written."""
    journal = Journal(path, run="r")
    journal.keep([(request("a"), response("a", "x"))])
    log = path.with_name(path.name + "-wal")
    acknowledged = log.stat().st_size
    journal.keep([(request("b"), response("b", "y"))])
    whole = log.read_bytes()
    main = path.read_bytes()
    journal.close()
    for size in (acknowledged, acknowledged + 100, len(whole) - 1, len(whole)):
        copy = tmp_path / f"cut{size}" / path.name
        copy.parent.mkdir()
        copy.write_bytes(main)
        copy.with_name(log.name).write_bytes(whole[:size])
        found = Journal(copy, run="r")
        assert found.find(request("a")) is not None
        assert (found.find(request("b")) is not None) == (size == len(whole))
        found.close()


def test_a_disk_that_refuses_is_told_and_what_was_kept_stays(path: Path) -> None:
    journal = Journal(path, run="r")
    journal.keep([(request("a"), response("a", "x"))])
    journal.connection.execute("PRAGMA max_page_count = 8")  # SQLite's own full disk
    with pytest.raises(UserError, match=f"cannot write .*{path.name}.*full"):
        journal.keep([(request("b"), response("b", "y" * 100_000))])
    assert journal.find(request("a")) is not None and journal.find(request("b")) is None
    journal.close()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write .*nowhere"):
        Journal(tmp_path / "nowhere" / "j.sqlite", run="r")


def test_findings_come_back_in_the_order_of_their_places(journal: Journal) -> None:
    for place, tokens in ((2, 20), (0, 7), (1, 3)):
        journal.keep_found(place, finding(place, tokens))
    assert journal.finished() == {0: ("solved", 7), 1: ("solved", 3), 2: ("solved", 20)}
    assert [line[-2] for line in journal.found()] == ["0", "1", "2"]


def finding(place: int, tokens: int) -> str:
    usage = f'"usage": {{"completion_tokens": {tokens}}}'
    return f'{{"status": "solved", {usage}, "é": {place}}}'


def test_a_changed_letter_in_a_finding_is_noticed(journal: Journal) -> None:
    journal.keep_found(0, finding(0, 5))
    journal.connection.execute("UPDATE found SET line = replace(line, '5', '6')")
    with pytest.raises(UserError, match="what was found at place 0 is damaged"):
        list(journal.found())


def test_a_journal_takes_another_over_and_a_second_time_changes_nothing(
    path: Path, journal: Journal
) -> None:
    journal.keep([(request("a"), response("a", "x"))])
    other = path.with_name("other.sqlite")
    for _ in range(2):  # as if it had been killed before the other was removed
        with closing(Journal(other, run="r")) as left:
            left.keep([(request(key), response(key, "y")) for key in ("b", "c")])
        journal.take_over(other)
        assert not list(path.parent.glob("other*"))
    found = {key: journal.find(request(key)) for key in "abc"}
    texts = {key: each.completions[0].text for key, each in found.items() if each}
    assert texts == {"a": "x", "b": "y", "c": "y"}
    with closing(Journal(other, run="another")):
        pass
    with pytest.raises(UserError, match="belongs to another run"):
        journal.take_over(other)


def test_an_engine_is_asked_once_and_its_answers_are_there_before_anybody_sees_them(
    path: Path,
) -> None:
    for attempt in range(2):
        journal = Journal(path, run="r")
        inner = ScriptedEngine(lambda r, i: f"{r.key}{i}", max_in_flight=3)
        engine = JournaledEngine(inner, journal)
        for i in range(5):
            engine.submit(request(f"k{i}"))
        seen: list[Response] = []
        while len(seen) < 5:
            for answer in engine.poll():
                assert journal.find(request(answer.key)) is not None
                seen.append(answer)
        assert [r.is_replayed for r in seen] == [bool(attempt)] * 5
        assert len(inner.requests) == (0 if attempt else 5)
        engine.close()
        journal.close()


@given(
    st.lists(
        st.tuples(st.text(), st.integers(0, 2**31), st.sampled_from(["stop", "length"])),
        min_size=1,
        max_size=4,
    )
)
def test_any_text_survives(tmp_path_factory: Any, written: list[tuple[str, int, str]]) -> None:
    path = tmp_path_factory.mktemp("any") / "j.sqlite"
    completions = tuple(Completion(text=t, tokens=n, finish=f) for t, n, f in written)
    journal = Journal(path, run="r")
    journal.keep([(request("a"), Response(key="a", completions=completions))])
    found = journal.find(request("a"))
    assert found is not None and found.completions == completions
    journal.close()
