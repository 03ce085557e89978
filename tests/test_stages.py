"""Keys, reuse, locks, lineage and failures of stages, with cheap real processes."""

import json
import multiprocessing
import os
import signal
import sys
import time
from threading import Timer

import pytest
from filelock import FileLock

from marco import processes, stages
from marco.errors import UserError
from marco.manifest import hidden, read_manifest
from marco.stages import Stage, StageFailed


def cheap_work(folder):
    """A stage's work without models: writes its inputs, counts its runs, fails as it is told."""
    for name in stages.RESUMED:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "state").write_text("as far as it came")
    order = json.loads((folder / "config.yaml").read_text())
    (folder / "out.txt").write_text(json.dumps(order["inputs"]))
    with open(order["config"]["count"], "a") as file:
        file.write("x")
    if order["config"].get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    code = order["config"].get("code", 0)
    if code:
        print("error: no room", file=sys.stderr)
    sys.exit(code)


@pytest.fixture(autouse=True)
def _cheap_work(monkeypatch):
    monkeypatch.setattr(stages.work, "run", cheap_work)
    monkeypatch.setattr(processes, "PRELOAD", [])


def make(tmp_path, name="a", inputs=None, **config):
    config = {"count": str(tmp_path / f"count-{name}")} | config
    return Stage(kind="trees", slug=name, config=config, inputs=inputs or {})


def materialise(stage, outputs):
    return stages.materialise(stage, outputs, cluster={"name": "local", "threads": None})


def runs(tmp_path, name="a"):
    path = tmp_path / f"count-{name}"
    return len(path.read_text()) if path.exists() else 0


def test_a_finished_stage_is_returned_and_not_run_again(tmp_path):
    first = materialise(make(tmp_path), tmp_path)
    again = materialise(make(tmp_path), tmp_path)
    assert first == again and runs(tmp_path) == 1
    manifest = read_manifest(first)
    assert manifest["status"] == "finished"
    assert manifest["files"]["out.txt"]["bytes"] == 2
    # What is of no use to a finished stage is neither sealed nor left.
    assert "journal/state" in manifest["files"] and "checkpoint/state" not in manifest["files"]
    assert (first / "journal" / "state").is_file() and not (first / "checkpoint").exists()
    assert first.name == f"a-{manifest['key'][:8]}"


def test_inputs_are_made_first_and_their_keys_are_part_of_the_key(tmp_path):
    small, large = make(tmp_path, size=1), make(tmp_path, size=2)
    left = make(tmp_path, "b", {"trees": small})
    right = make(tmp_path, "b", {"trees": large})
    assert left.key != right.key
    folder = materialise(left, tmp_path)
    lineage = read_manifest(folder)["inputs"]["trees"]
    assert lineage == {"path": str(small.folder(tmp_path)), "key": small.key}
    assert runs(tmp_path) == 1


def test_volatile_keys_change_nothing_at_any_depth(tmp_path):
    few = make(tmp_path, engine={"max_num_seqs": 8, "dtype": "bfloat16"}, cluster={"threads": 1})
    many = make(tmp_path, engine={"max_num_seqs": 99, "dtype": "bfloat16"}, cluster={"threads": 2})
    other = make(tmp_path, engine={"max_num_seqs": 8, "dtype": "float32"}, cluster={"threads": 1})
    assert few.key == many.key != other.key


def test_labels_are_no_part_of_the_key(tmp_path):
    plain = make(tmp_path)
    titled = Stage(kind="trees", slug="a", config=plain.config, labels={"title": "A"})
    assert plain.key == titled.key


def test_the_order_of_keys_does_not_matter():
    one = Stage(kind="trees", slug="a", config={"x": 1, "y": [1, 2]})
    two = Stage(kind="trees", slug="a", config={"y": [1, 2], "x": 1})
    assert one.key == two.key


def test_a_stage_that_fails_leaves_no_folder_and_runs_again(tmp_path):
    stage = make(tmp_path, code=2)
    with pytest.raises(StageFailed, match="exit code 2"):
        materialise(stage, tmp_path)
    assert not stage.folder(tmp_path).exists()
    with pytest.raises(StageFailed):
        materialise(stage, tmp_path)
    assert runs(tmp_path) == 2


def test_a_stage_that_is_killed_names_the_signal_and_leaves_its_inputs_intact(tmp_path):
    inner = make(tmp_path)
    with pytest.raises(StageFailed, match="SIGKILL"):
        materialise(make(tmp_path, "b", {"trees": inner}, die=True), tmp_path)
    assert read_manifest(inner.folder(tmp_path))["status"] == "finished"


def _sleeper(folder):
    processes.end_with_script()
    (folder.parent / "child").write_text(str(os.getpid()))
    time.sleep(600)


def _materialise_a_sleeper(tmp_path):
    stages.work.run, processes.PRELOAD = _sleeper, []
    materialise(make(tmp_path), tmp_path)


def test_a_script_that_is_killed_takes_its_stage_with_it_and_holds_nothing(tmp_path):
    script = multiprocessing.get_context("spawn").Process(
        target=_materialise_a_sleeper, args=(tmp_path,)
    )
    script.start()
    child = tmp_path / "trees" / "child"
    _wait_until(lambda: child.exists() and child.read_text())
    os.kill(script.pid, signal.SIGKILL)
    script.join()
    pid = int(child.read_text())
    _wait_until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert read_manifest(materialise(make(tmp_path), tmp_path))["status"] == "finished"


def _wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_a_killed_run_left_behind_is_cleared(tmp_path):
    stage = make(tmp_path)
    part = stage.folder(tmp_path).parent / f".{stage.folder(tmp_path).name}.part"
    part.mkdir(parents=True)
    (part / "half.txt").write_text("half")
    folder = materialise(stage, tmp_path)
    assert not (folder / "half.txt").exists() and not part.exists()


def _hold(path, ready, end):
    with FileLock(path):
        ready.set()
        end.wait()


def test_a_stage_that_a_living_process_makes_is_waited_for(tmp_path, capfd):
    stage = make(tmp_path)
    folder = stage.folder(tmp_path)
    folder.parent.mkdir(parents=True)
    hidden(folder, "pid").write_text("process 4242 on elsewhere")
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(hidden(folder, "lock"), ready, end))
    holder.start()
    assert ready.wait(60)
    # A dead holder holds nothing.
    Timer(1, os.kill, (holder.pid, signal.SIGKILL)).start()
    assert materialise(stage, tmp_path) == folder
    assert "waiting, process 4242 on elsewhere is making it" in capfd.readouterr().out
    holder.join()
    assert holder.exitcode == -signal.SIGKILL
    assert runs(tmp_path) == 1


def test_scripts_side_by_side_run_a_stage_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    scripts = [context.Process(target=_materialise_slowly, args=(tmp_path,)) for _ in range(3)]
    for script in scripts:
        script.start()
    for script in scripts:
        script.join()
        assert script.exitcode == 0
    assert runs(tmp_path) == 1


def _slow_work(folder):
    time.sleep(1)
    cheap_work(folder)


def _materialise_slowly(tmp_path):
    stages.work.run, processes.PRELOAD = _slow_work, []
    materialise(make(tmp_path), tmp_path)


def _good_work(folder):
    sys.exit(0)


def test_how_a_stage_failed_is_kept_until_it_is_made(tmp_path, monkeypatch):
    stage = make(tmp_path, code=3)
    with pytest.raises(StageFailed, match="exit code 3"):
        materialise(stage, tmp_path)
    failed = hidden(stage.folder(tmp_path), "failed")
    assert json.loads(failed.read_text())["ending"] == "exit code 3"
    assert json.loads(failed.read_text())["told"] == "error: no room"
    monkeypatch.setattr(stages.work, "run", _good_work)
    materialise(stage, tmp_path)
    assert not failed.exists()


def test_a_folder_of_another_key_is_not_overwritten(tmp_path):
    stage = make(tmp_path)
    folder = materialise(stage, tmp_path)
    manifest = read_manifest(folder) | {"key": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="belongs to another config"):
        materialise(stage, tmp_path)


def test_a_file_that_is_gone_is_named(tmp_path):
    folder = materialise(make(tmp_path), tmp_path)
    (folder / "out.txt").unlink()
    with pytest.raises(UserError, match=r"out\.txt is missing"):
        materialise(make(tmp_path), tmp_path)


def test_outside_inputs_are_keyed_by_their_content(tmp_path):
    data = tmp_path / "mine"
    data.mkdir()
    (data / "trees.jsonl").write_text("one")
    first = make(tmp_path, "b", {"trees": data}).key
    (data / "trees.jsonl").write_text("two")
    assert make(tmp_path, "b", {"trees": data}).key != first
    with pytest.raises(UserError, match="does not exist"):
        _ = make(tmp_path, "b", {"trees": tmp_path / "nowhere"}).key


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        materialise(make(tmp_path), tmp_path / "file")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}'])
def test_a_broken_manifest_is_named(tmp_path, text):
    folder = materialise(make(tmp_path), tmp_path)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        materialise(make(tmp_path), tmp_path)
