"""Rows that Hydra's launchers start side by side end as rows one after another do."""

import subprocess

import pytest

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
def test_a_row_that_fails_is_told_and_the_table_written_once(launcher, tmp_path):
    if launcher == "ray":  # not in the lock
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
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
