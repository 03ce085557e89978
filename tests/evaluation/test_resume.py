"""A real `evaluate.py`, killed inside a task: what was answered is not asked again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from marco.config import ROOT

PROBLEMS, AT_ONCE = 40, 8


def start(folder: Path, latency_s: float) -> subprocess.Popen[str]:
    arguments = [
        "engine=scripted",
        "logger=none",
        "decoding=sample",
        "decoding.tries=2",
        "decoding.test_at=[1,2]",
        f"task.test={PROBLEMS}",
        f"engine.max_num_seqs={AT_ONCE}",
        f"engine.latency_s={latency_s}",
        f"engine.log={folder / 'requests.txt'}",
        f"outputs={folder / 'outputs'}",
    ]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "evaluate.py"), *arguments],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_an_evaluation_goes_on_inside_a_task(tmp_path: Path, embedded_folder: Path) -> None:
    samples = []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        (folder / "outputs").mkdir(parents=True)
        (folder / "outputs" / "models").symlink_to(embedded_folder.parent)
        log = folder / "requests.txt"
        log.touch()
        if name == "killed":
            process = start(folder, latency_s=0.2)
            while process.poll() is None and len(log.read_text().split()) < PROBLEMS:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.communicate() and process.returncode == -9
        process = start(folder, latency_s=0)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        asked = Counter(log.read_text().split())
        assert len(asked) == 2 * PROBLEMS
        assert asked.total() <= 2 * PROBLEMS + (AT_ONCE if name == "killed" else 0)
        [scores] = (folder / "outputs" / "scores").glob("*/samples.jsonl")
        samples.append(scores.read_bytes())
    assert samples[0] == samples[1]
    rows = [json.loads(line) for line in samples[0].splitlines()]
    assert [(row["id"], row["try"]) for row in rows] == [
        (f"arithmetic-test-{i}", attempt) for i in range(PROBLEMS) for attempt in (0, 1)
    ]
