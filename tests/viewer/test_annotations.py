"""The store of annotations: nothing is lost, whoever writes at once and whenever it is killed."""

import json
import multiprocessing
import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco.errors import UserError
from marco.viewer.annotations import AnnotationStore, Changed


def save(store: AnnotationStore, request: str, **changes):
    values = {"annotator": "ada", "tab": "t", "tree": "p0", "node": 3, "chain": "c"}
    values |= {"label": "correct", "text": None, "seen": None}
    return store.save(request=request, **values | changes)


def current(store: AnnotationStore, node: int = 3) -> str | None:
    return {s["node"]: s["label"] for s in store.states("ada", "p0")}.get(node)


def test_undo_goes_back_step_by_step(store: AnnotationStore) -> None:
    one = save(store, "1")
    two = save(store, "2", label="wrong", text="so", seen=one["seq"])
    save(store, "3", node=5, label="discard")
    assert store.undo(request="4", annotator="ada", tab="t")["node"] == 5
    assert current(store, 5) is None and current(store) == "wrong"
    back = store.undo(request="5", annotator="ada", tab="t")
    assert (back["label"], back["text"]) == ("correct", None) and back["seq"] > two["seq"]
    assert store.undo(request="6", annotator="ada", tab="t")["label"] is None
    assert store.undo(request="7", annotator="ada", tab="t") is None
    assert store.counts("ada") == {"correct": 0, "wrong": 0, "discard": 0, "edited": 0}


def test_undo_is_of_one_tab_and_one_annotator(store: AnnotationStore) -> None:
    one = save(store, "1")
    assert store.undo(request="2", annotator="bob", tab="t") is None
    assert store.undo(request="3", annotator="ada", tab="u") is None
    save(store, "4", tab="u", label="wrong", seen=one["seq"])
    with pytest.raises(Changed):
        store.undo(request="5", annotator="ada", tab="t")
    assert current(store) == "wrong"


def test_a_request_that_is_sent_again_counts_once(store: AnnotationStore) -> None:
    one = save(store, "1")
    assert save(store, "1") == one
    undone = store.undo(request="2", annotator="ada", tab="t")
    assert store.undo(request="2", annotator="ada", tab="t") == undone


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["correct", "wrong", None, "undo"]))))
def test_states_are_those_of_a_plain_history(tmp_path_factory, actions) -> None:
    """The slow twin: a stack of what was there before."""
    store = AnnotationStore(tmp_path_factory.mktemp("store") / "a.sqlite")
    labels: dict[int, str | None] = {}
    seqs: dict[int, int] = {}
    stack = []
    for place, (node, label) in enumerate(actions):
        if label == "undo":
            state = store.undo(request=str(place), annotator="ada", tab="t")
            if stack:
                node, before = stack.pop()
                labels[node] = before
                assert state is not None and (state["node"], state["label"]) == (node, before)
            else:
                assert state is None
        else:
            state = save(store, str(place), node=node, label=label, seen=seqs.get(node))
            stack.append((node, labels.get(node)))
            labels[node] = label
        if state is not None:
            seqs[node] = state["seq"]
        assert all(current(store, node) == label for node, label in labels.items())
    store.close()


def _write(path: Path, name: str, count: int, pipe) -> None:
    store = AnnotationStore(path)
    for i in range(count):
        save(store, f"{name}-{i}", tab=name, node=i, tree=name)
        pipe.send(i)
    pipe.close()


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    fork = multiprocessing.get_context("spawn")
    pipes = {name: fork.Pipe(duplex=False) for name in ("p0", "p1")}
    writers = [
        fork.Process(target=_write, args=(path, name, 30, sender))
        for name, (_, sender) in pipes.items()
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert AnnotationStore(path).counts("ada")["correct"] == 60


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    fork = multiprocessing.get_context("spawn")
    receiver, sender = fork.Pipe(duplex=False)
    writer = fork.Process(target=_write, args=(path, "p0", 10**6, sender))
    writer.start()
    while receiver.recv() < 20:
        pass
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    sender.close()
    last = 20
    while receiver.poll():
        try:
            last = receiver.recv()
        except EOFError:
            break
    store = AnnotationStore(path)
    saved = {node for _, node in store.labelled("ada")}
    assert saved >= set(range(last + 1)) and len(saved) <= last + 2


def test_the_export_is_what_datasets_read(store: AnnotationStore, tmp_path: Path) -> None:
    from marco.data.annotations import Annotations

    save(store, "1", chain="c1")
    save(store, "2", node=4, chain="c2", label="discard")
    save(store, "3", node=5, chain="c3", label=None)
    save(store, "4", annotator="bob", chain="c1", label="wrong", text="é")
    lines = list(store.export())
    assert [json.loads(line)["chain"] for line in lines] == ["c1", "c2", "c1"]
    (tmp_path / "a.jsonl").write_text("".join(lines[:2]), "utf-8")
    assert len(Annotations.read(tmp_path / "a.jsonl")) == 2


def test_the_file_is_for_its_owner_and_keeps_its_token(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    store = AnnotationStore(path)
    token = store.token
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert AnnotationStore(path).token == token and len(token) > 40


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to be none" * 50)
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    for name in ("text", "other.sqlite", "missing/a.sqlite"):
        with pytest.raises(UserError):
            AnnotationStore(tmp_path / name)
