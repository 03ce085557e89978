"""How a stage's process ends: 0, or 2 with one clear line, whatever library gave up."""

import json

import pytest
import torch
from safetensors import SafetensorError

from marco import work
from marco.errors import UserError


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """The exit code of a stage whose work raises what is told."""
    monkeypatch.setattr(work, "exit_on_sigterm", lambda: None)

    def ended(error=None, threads=None):
        def do(order):
            assert (order.config, order.inputs, order.out) == ({"a": 1}, {}, tmp_path)
            if error is not None:
                raise error

        monkeypatch.setitem(work.WORK, "student", do)
        order = {"kind": "student", "key": "k", "config": {"a": 1}, "inputs": {}, "labels": {}}
        order["cluster"] = {"name": "local", "threads": threads}
        (tmp_path / "config.yaml").write_text(json.dumps(order))
        with pytest.raises(SystemExit) as end:
            work.run(tmp_path)
        return end.value.code

    return ended


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("line 3 is malformed"), "error: line 3 is malformed"),
        (OSError(28, "No space left on device", "/x"), "error: No space left on device (/x)"),
        (SafetensorError("I/O error: No space left"), "error: I/O error: No space left"),
    ],
)
def test_what_a_person_can_mend_is_one_line(ended, capsys, error, line):
    assert ended(error) == 2
    assert capsys.readouterr().err.splitlines() == [line]


def test_other_ends(ended):
    assert ended() == 0
    assert ended(KeyboardInterrupt()) == 130


def test_a_stage_keeps_to_its_threads(tmp_path, monkeypatch, ended):
    seen = []
    monkeypatch.setattr(work, "quiet", lambda: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        ended()
        ended(threads=3)
    finally:
        torch.set_num_threads(before)
    assert seen == [before, 3]
