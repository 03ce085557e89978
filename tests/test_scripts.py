"""Bad input from the command line: one clear line, exit code not 0, finished work intact."""

import json
import os
import subprocess
import sys

import pytest

from marco.config import ROOT

SCRIPTED = ["engine=scripted", "logger=none", "task.train=12", "search.max_rollouts=4"]


@pytest.fixture
def run(tmp_path, embedded_folder):
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "models").symlink_to(embedded_folder.parent)

    def run(name, *overrides):
        return subprocess.run(
            [sys.executable, str(ROOT / name), *overrides, f"outputs={outputs}"],
            cwd=tmp_path,
            env={**os.environ, "WANDB_MODE": "disabled"},
            capture_output=True,
            text=True,
        )

    return run


def told(done, *parts):
    """It failed, said so, and showed no traceback."""
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert "Traceback" not in text, text
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["recipe=nonesuch"], ["nonesuch", "masked_joint"]),
        (["search.max_rolouts=3"], ["max_rolouts"]),
        (["search.max_rollouts=lots"], ["conf/search/distinct.yaml", "'lots'"]),
        (["tasks=[arithmetik]", "recipe=base"], ["unknown task 'arithmetik'", "`arithmetic`"]),
        (["trees=/nowhere"], ["/nowhere", "does not exist"]),
        (["student=folder"], ["student.model"]),
    ],
)
def test_what_is_wrong_with_the_config_is_told(run, overrides, parts):
    told(run("train.py", *SCRIPTED, *overrides), *parts)


def test_outputs_that_cannot_be_written_are_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    for script in ("generate.py", "train.py"):
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *SCRIPTED, f"outputs={tmp_path / 'file' / 'x'}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        told(done, "Not a directory", "file/x")


def test_trees_with_a_malformed_line_name_it(run, tmp_path):
    (tmp_path / "trees.jsonl").write_text('{"schema": 1\n')
    told(run("train.py", "recipe=sft", f"trees={tmp_path / 'trees.jsonl'}"), "trees.jsonl, line 1")


def test_a_task_without_gold_answers_names_the_line(run, tmp_path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    good = {"question": "1 + 1?", "answer": "#### 2"}
    train.write_text(json.dumps(good) + "\n" + json.dumps({"question": "2 + 2?"}) + "\n")
    test.write_text(json.dumps(good | {"question": "3 + 3?"}) + "\n")
    files = [f"task.train_file={train}", f"task.test_file={test}", "task.validation=1"]
    overrides = ["task=gsm8k", *files, "engine=scripted", "logger=none", "task.train=null"]
    told(run("generate.py", *overrides), "train.jsonl, line 2", "no gold answer")


def test_a_test_problem_among_the_training_problems_is_an_error(run, tmp_path):
    rows = [{"question": f"{i} + 1?", "answer": f"#### {i + 1}"} for i in range(5)]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text(json.dumps({"question": "2  +  1?", "answer": "#### 3"}) + "\n")
    files = [f"task.train_file={train}", f"task.test_file={test}", "task.validation=1"]
    overrides = ["task=gsm8k", *files, "engine=scripted", "logger=none", "task.train=null"]
    told(run("generate.py", *overrides), "test problems of gsm8k", "gsm8k-train-2")


def test_an_empty_dataset_tells_its_filter_and_keeps_the_trees(run, tmp_path):
    done = run("generate.py", *SCRIPTED, "data.max_tokens=5")
    told(done, "no SFT chain is left", "did not finish")
    (trees,) = (tmp_path / "outputs" / "trees").glob("arithmetic-*")
    assert json.loads((trees / "manifest.json").read_text())["status"] == "finished"


def test_responses_that_are_there_are_graded_without_a_model(run, tmp_path):
    problems, responses = tmp_path / "p.jsonl", tmp_path / "r.jsonl"
    problems.write_text('{"id": 1, "problem": "3 - 3?", "answer": 0}\n')
    responses.write_text('{"id": 1, "response": "The answer is 0."}\n')
    out = tmp_path / "scores"
    files = [f"problems={problems}", f"responses={responses}", f"output_dir={out}"]
    done = run("evaluate.py", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((out / "results.json").read_text())["tasks"]["arithmetic"]
    assert (figures["n"], figures["accuracy"]) == (1, 1.0)
    assert json.loads((out / "samples.jsonl").read_text())["verdict"] == "correct"
    responses.write_text('{"id": 2, "response": "The answer is 0."}\n')
    told(run("evaluate.py", *files), "r.jsonl, line 1: no problem has the id 2")


def test_a_model_folder_without_a_chat_template_is_told(run, tmp_path, embedded_folder):
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in embedded_folder.iterdir():
        if path.name != "chat_template.jinja":
            (folder / path.name).symlink_to(path)
    told(
        run("evaluate.py", f"student={folder}", "engine=scripted", "logger=none"),
        "bare has no chat template",
    )


def test_a_full_disk_is_told_and_finished_work_stays(run, tmp_path):
    run("generate.py", *SCRIPTED, "data.max_tokens=5")  # finishes its trees
    limited = subprocess.run(
        # A file may grow to 1 KiB: writing fails as on a full disk.
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", sys.executable, str(ROOT / "generate.py")]
        + [*SCRIPTED, "task.train=14", f"outputs={tmp_path / 'outputs'}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    told(limited, "error: ", "File too large")
    assert len(list((tmp_path / "outputs" / "trees").glob("*/manifest.json"))) == 1
