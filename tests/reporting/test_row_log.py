"""A row and the process that logs it: neither holds up nor ends the other."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from marco.errors import UserError
from marco.reporting import row_log
from marco.reporting.row_log import logged

from .logged_rows import config_of, finish_all, scores_of, train
from .loggers.reading import ROOT, command


def states(outputs):
    """What the runs' own files say, by the runs' names."""
    told = [json.loads(path.read_text()) for path in outputs.glob("csv/rows/*/run.json")]
    return {run["name"]: run["state"] for run in told}


def test_a_row_is_logged_by_another_process_by_the_time_it_ends_and_only_once(
    tmp_path, monkeypatch
):
    config = config_of(tmp_path)
    with logged(config, scores_of(config)):
        finish_all(config)
    assert set(states(tmp_path).values()) == {"finished"} and len(states(tmp_path)) == 6
    monkeypatch.setattr(row_log.subprocess, "Popen", lambda *_, **__: pytest.fail("it started"))
    with logged(config, scores_of(config)):
        pass


def test_a_row_that_fails_keeps_its_error_and_its_run_is_closed_as_failed(tmp_path):
    config = config_of(tmp_path)
    with pytest.raises(UserError, match="of its own"), logged(config, scores_of(config)):
        finish_all(config, until="student")
        train(scores_of(config).inputs["student"], tmp_path, 1)
        raise UserError("an error\nof its own")
    assert states(tmp_path)["cdpo-seed0"] == "failed"
    (row,) = tmp_path.glob("csv/rows/scores-*")
    assert json.loads((row / "summary.json").read_text())["error"] == "an error of its own"


def test_a_row_that_is_killed_has_its_run_closed_as_failed(tmp_path):
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(tmp_path, "train", "logger=csv"), cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert "in training" in process.stdout.readline()
        while len(states(tmp_path)) < 5:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    while "running" in states(tmp_path).values():
        time.sleep(0.05)
    assert states(tmp_path)["cdpo-seed0"] == "failed"
    (row,) = tmp_path.glob("csv/rows/scores-*")
    assert "was killed" in json.loads((row / "summary.json").read_text())["error"]


def test_a_row_that_is_told_to_stop_does_not_wait_for_its_log(tmp_path, monkeypatch):
    started = []
    begin = row_log._Watcher.__init__
    monkeypatch.setattr(
        row_log._Watcher, "__init__", lambda self, order: started.append(self) or begin(self, order)
    )
    monkeypatch.setattr(row_log._Watcher, "end", lambda *_: pytest.fail("it waited"))
    config = config_of(tmp_path)
    with pytest.raises(SystemExit), logged(config, scores_of(config)):
        finish_all(config, until="scores")
        sys.exit(143)
    assert started[0].process.wait() == 0  # by itself
    assert states(tmp_path)["cdpo-seed0"] == "failed"


def test_a_log_that_does_not_end_is_given_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(row_log, "WATCH", ("-c", "import time; time.sleep(600)"))
    config = config_of(tmp_path, "logger.finish_s=0.2")
    with logged(config, scores_of(config)):
        pass
    assert "not finished in 0.2 s (logger.finish_s)" in capsys.readouterr().out


def test_a_log_that_has_died_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(row_log, "WATCH", ("-c", "pass"))
    config = config_of(tmp_path)
    with logged(config, scores_of(config)):
        finish_all(config)
    assert not (tmp_path / "csv").exists()


def test_a_log_that_cannot_be_started_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(row_log.sys, "executable", str(tmp_path / "nothing"))
    config, done = config_of(tmp_path), False
    with logged(config, scores_of(config)):
        done = True
    assert done and "logger csv did not start" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["none", "disabled", "by the environment"])
def test_nothing_starts_where_nothing_is_logged(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(row_log.subprocess, "Popen", lambda *_, **__: pytest.fail("it started"))
    if mode == "by the environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    overrides = {"none": ["logger=none"], "disabled": ["logger=wandb", "logger.mode=disabled"]}
    config = config_of(tmp_path).model_copy(
        update={"logger": _logger(*overrides.get(mode, ["logger=wandb"]))}
    )
    with logged(config, scores_of(config)):
        pass
    assert os.listdir(tmp_path) == []


def _logger(*overrides):
    from ..test_config import checked

    return checked(*overrides).logger
