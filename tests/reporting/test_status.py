"""What has become of stages: running, finished, failed, broken off; and how far tables are."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from marco.manifest import MANIFEST, SCHEMA, hidden
from marco.reporting import __main__ as reporting
from marco.reporting.status import figures

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def told(outputs: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], dict[str, dict]]:
    """The lines for a person, and each stage by its name."""
    file = outputs.parent / "status.json"
    assert reporting.main(["status", str(outputs), "--json", str(file)]) == 0
    stages = {stage["name"]: stage for stage in json.loads(file.read_text())["stages"]}
    return capsys.readouterr().out.splitlines(), stages


def test_each_state_of_a_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    students = tmp_path / "outputs" / "student"
    (students / "a-1").mkdir(parents=True)
    manifest = {"schema": SCHEMA, "key": "1", "seconds": 75.0, "inputs": {}}
    (students / "a-1" / MANIFEST).write_text(json.dumps(manifest))
    failure = {"ending": "exit code 2", "told": "error: no room", "seconds": 3.0}
    hidden(students / "b-2", "failed").write_text(json.dumps(failure))
    progress = {"done": 5, "total": 20, "unit": "steps", "left_s": 90.0}
    for name in ("c-3", "d-4"):
        hidden(students / name, "part").mkdir()
        hidden(students / name, "progress").write_text(json.dumps(progress))
    hidden(students / "d-4", "pid").write_text("process 7 on node-1")
    os.utime(hidden(students / "d-4", "pid"), (0, 0))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(hidden(students / "d-4", "lock"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    try:
        lines, stages = told(tmp_path / "outputs", capsys)
    finally:
        holder.communicate()
    assert {name: stage["state"] for name, stage in stages.items()} == {
        "a-1": "finished",
        "b-2": "failed",
        "c-3": "broken off",
        "d-4": "running",
    }
    running, failed, broken, finished = lines
    assert "process 7 on node-1, 5/20 steps" in running and "1:30 left" in running
    assert failed.endswith("exit code 2, 0:03: error: no room")
    assert "5/20 steps" in broken and "left" not in broken
    assert finished.endswith("1:15")
    # Its holder has ended: nobody makes it.
    assert told(tmp_path / "outputs", capsys)[1]["d-4"]["state"] == "broken off"


def test_a_lock_whose_holder_has_just_ended_is_no_error(tmp_path: Path) -> None:
    part = hidden(tmp_path / "student" / "a-1", "part")
    part.mkdir(parents=True)
    with FileLock(hidden(tmp_path / "student" / "a-1", "lock")):  # and there is no .pid
        [stage] = figures(Namespace(outputs=tmp_path))["stages"]
    assert stage["state"] == "broken off"


def test_a_lock_of_another_user_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    part = hidden(tmp_path / "student" / "a-1", "part")
    part.mkdir(parents=True)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    for state in ("broken off", "running"):
        [stage] = figures(Namespace(outputs=tmp_path))["stages"]
        assert stage["state"] == state
        hidden(tmp_path / "student" / "a-1", "pid").write_text("process 7 on node-1")


def test_a_folder_that_is_no_sweeps_table_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs" / "table" / "mine").mkdir(parents=True)
    hidden(tmp_path / "outputs" / "student" / "a-1", "part").mkdir(parents=True)
    lines, _ = told(tmp_path / "outputs", capsys)
    assert len(lines) == 1


def test_where_there_is_nothing_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reporting.main(["status", str(tmp_path / "nowhere")]) == 2
    assert reporting.main(["status", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "is not a folder" in first and "holds no stage" in second
