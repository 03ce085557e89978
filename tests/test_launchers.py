"""Rows that Hydra's launchers start side by side end as rows one after another do."""

import subprocess

import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import OmegaConf
from ray.exceptions import WorkerCrashedError
from submitit.core.utils import UncompletedJobError

from marco import cli
from marco.config import ROOT

from .test_sweep import cheap_train, records

LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"),
    "ray": ("hydra/launcher=ray", "hydra.launcher.ray.init.address=local"),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_row_that_fails_is_told_and_the_table_written_once(launcher, tmp_path, monkeypatch):
    if launcher == "ray":  # not in the lock
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
        monkeypatch.setenv("RAY_agent_register_timeout_ms", "200000")  # for a busy machine
        monkeypatch.setenv("RAY_raylet_start_wait_time_s", "200")
    rows = ("recipe=dpo", "seed=1,2")
    ended = subprocess.run(
        cheap_train(tmp_path, *LAUNCHERS[launcher], poison="2", rows=rows),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert "error: 1 failed: see " in ended.stderr
    good, failed = (records(tmp_path)["dpo", seed] for seed in (1, 2))
    assert good["scores"] and not good["failed"]
    assert "ended by SIGKILL" in str(failed["failed"]) and not failed["scores"]
    assert ended.stdout.count("\ntable: ") == 1
    (table,) = (tmp_path / "table").glob("*/table.md")
    assert "failed (seed 2)" in table.read_text() and "11 × 1" in table.read_text()
    # What both rows stand on was made once: trees, two datasets, the SFT student, the reference.
    begun = (tmp_path / "begun").read_text().split()
    assert len(begun) == len(set(begun))


def test_errors_of_an_earlier_run_in_the_same_folder_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.RunFolder, "path", None)
    for folder in (tmp_path, tmp_path / "3"):
        folder.mkdir(exist_ok=True)
        (folder / cli.ERROR).write_text("of an earlier run")
    assert len(cli.left_by_jobs(tmp_path, cli.ERROR)) == 2
    folders = {"run": {"dir": "elsewhere"}, "sweep": {"dir": str(tmp_path)}}
    cli.RunFolder().on_multirun_start(OmegaConf.create({"hydra": folders}))
    assert cli.left_by_jobs(tmp_path, cli.ERROR) == []


@pytest.mark.parametrize("error", [TerminatedWorkerError, UncompletedJobError, WorkerCrashedError])
def test_a_launcher_whose_job_was_ended_says_so_in_a_line(error, monkeypatch, capsys):
    def main(**_):
        def raising(job):
            def run():
                raise error() if error is WorkerCrashedError else error("its time ran out")

            return run

        return raising

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which the script sets: to be taken out after it
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    monkeypatch.setattr(cli.hydra, "main", main)
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda config, job: None, config_name="train")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
