"""The three scripts for real: vLLM's CPU build, the embedded model, few problems, few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from transformers import AutoTokenizer

from marco.config import ROOT
from marco.search.tree import read_trees

SMALL = [
    "task.train=8",
    "task.test=8",
    "pattern=a",  # one worked prompt for each form, where `mixed` has four
    "search.max_rollouts=6",
    "search.accept_correct=1",
    "pairs.per_tree=1",
    "trainer.sft.epochs=1",
    "decoding.max_tokens=64",
]


def script(name, *overrides, cwd, outputs):
    """Run a script as a user does, from another working directory."""
    command = [sys.executable, str(ROOT / name), *overrides, f"outputs={outputs}"]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def finished(stage: Path) -> list[Path]:
    return [p for p in sorted(stage.iterdir()) if p.is_dir() and not p.name.startswith(".")]


@pytest.fixture(scope="module")
def place(tmp_path_factory, embedded_folder):
    """A working directory, and outputs that share the repository's de-quantised model."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    outputs = cwd / "outputs"
    outputs.mkdir()
    (outputs / "models").symlink_to(embedded_folder.parent)
    return cwd, outputs


def test_trees_then_a_row_then_the_scores_of_its_student(place):
    cwd, outputs = place
    grown = script("generate.py", *SMALL, cwd=cwd, outputs=outputs)
    assert grown.returncode == 0, grown.stdout + grown.stderr
    trees = list(read_trees(finished(outputs / "trees")[0]))
    assert [tree.id for tree in trees] == [f"arithmetic-train-{i}" for i in range(8)]
    assert all(tree.usage["requests"] for tree in trees)

    trained = script("train.py", *SMALL, "recipe=masked_joint", cwd=cwd, outputs=outputs)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    student = next((outputs / "student").glob("conservative-joint-masked_all-*"))
    assert AutoTokenizer.from_pretrained(student).chat_template
    assert {"model.safetensors", "config.json", "README.md", "metrics.csv"} <= {
        path.name for path in student.iterdir()
    }
    pairs = datasets.load_from_disk(str(next((outputs / "dataset").glob("pairs-*")) / "dataset"))
    assert {"prompt", "chosen", "rejected", "shared_prefix_tokens"} <= set(pairs.column_names)
    lineage = json.loads((student / "manifest.json").read_text())["inputs"]
    assert set(lineage) == {"dataset", "reference", "start"}

    scored = script(
        "evaluate.py", *SMALL, f"student={student}", "tasks=[arithmetic]", cwd=cwd, outputs=outputs
    )
    assert scored.returncode == 0, scored.stdout + scored.stderr
    scores = finished(outputs / "scores")
    assert len(scores) == 2, "the same student, scored by its row and by hand"
    for folder in scores:
        result = json.loads((folder / "results.json").read_text())["tasks"]["arithmetic"]
        lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        samples = [json.loads(line) for line in lines]
        assert result["n"] == len(samples) == 8
        assert result["accuracy"] == sum(s["verdict"] == "correct" for s in samples) / 8
        assert result["no_answer"] == sum(s["verdict"] == "no_answer" for s in samples) / 8
        assert 0 <= result["accuracy_interval"][0] <= result["accuracy"]
