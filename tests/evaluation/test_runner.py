"""Whole evaluations without a model: several tasks, a server elsewhere, workers on Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marco import pipeline
from marco.config import ROOT
from marco.driver import worker
from marco.errors import UserError
from marco.evaluation.runner import evaluate
from marco.evaluation.start import reply_limits
from marco.stages import Stage

from ..engines.servers import Server
from ..test_config import checked

LOCAL = {"name": "local", "threads": None}
SMALL = ("task.test=6", "+task_overrides.letter_count.test=4", "engine=scripted")


def stage_of(*overrides: str) -> Stage:
    return pipeline.scores(checked(*overrides, name="evaluate"), None)


def scored(
    stage: Stage, out: Path, student: Path, *, problems: Path | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out.mkdir(exist_ok=True)
    evaluate(
        {**stage.config, "tasks": stage.labels["tasks"]},
        stage.labels,
        student=student,
        problems=problems,
        cluster=LOCAL,
        run=stage.key,
        out=out,
        models=student.parent,
    )
    lines = (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return results, [json.loads(line) for line in lines]


def test_all_tasks_share_one_engine(tmp_path, embedded_folder, monkeypatch) -> None:
    started = []

    def make_engine(*arguments: Any, **settings: Any) -> Any:
        started.append(arguments)
        return made(*arguments, **settings)

    made = worker.make_engine
    monkeypatch.setattr(worker, "make_engine", make_engine)
    stage = stage_of("tasks=[arithmetic,letter_count]", *SMALL)
    results, samples = scored(stage, tmp_path, embedded_folder)
    assert len(started) == 1
    assert [s["task"] for s in samples] == ["arithmetic"] * 6 + ["letter_count"] * 4
    assert {name: task["n"] for name, task in results["tasks"].items()} == {
        "arithmetic": 6,
        "letter_count": 4,
    }
    assert all(s["verdict"] in ("correct", "wrong", "no_answer") for s in samples)
    limits = {name: task["max_tokens"] for name, task in results["tasks"].items()}
    assert limits == {"arithmetic": 512, "letter_count": 1024}
    again, _ = scored(stage, tmp_path, embedded_folder)  # all is known: nothing is asked again
    seconds = {"tasks": {name: task | {"seconds": 0} for name, task in again["tasks"].items()}}
    assert len(started) == 1
    for name, task in results["tasks"].items():
        assert task | {"seconds": 0} == seconds["tasks"][name]


@pytest.mark.parametrize(
    ("overrides", "limits"),
    [
        ([], {"arithmetic": 512, "math": 2048}),  # engine.max_model_len is 2,048
        (["decoding=sample", "engine.max_model_len=9999"], {"arithmetic": 512, "math": 8192}),
        (["decoding.max_tokens=300"], {"arithmetic": 300, "math": 300}),
        (["engine=scripted"], {"arithmetic": 512, "math": 8192}),
        (["decoding=mcts"], {}),
        (["size=paper", "tasks=[math,aime]"], {"math": 8192, "aime": 32768}),
    ],
)
def test_replies_are_as_long_as_task_decoding_and_engine_allow(overrides, limits) -> None:
    config = checked("tasks=[arithmetic,math]", *overrides, name="evaluate")
    stage = pipeline.scores(config, None)
    assert reply_limits({**stage.config, "tasks": stage.labels["tasks"]}) == limits


def test_too_little_room_for_replies_is_told(tmp_path, embedded_folder, capsys) -> None:
    server = Server()
    try:
        address = ["engine=openai", f"engine.urls=[{server.url}]", "engine.max_model_len=400"]
        model = ["student=folder", f"student.model={embedded_folder}", "task.test=1"]
        results, _ = scored(stage_of(*address, *model), tmp_path / "out", embedded_folder)
    finally:
        server.close()
    assert results["tasks"]["arithmetic"]["max_tokens"] == 400
    assert "arithmetic: prompt and reply share engine.max_model_len=400" in capsys.readouterr().out


@pytest.mark.parametrize("decoding", ["sample", "majority", "mcts"])
def test_every_way_of_decoding_gives_its_tries(tmp_path, embedded_folder, decoding) -> None:
    tries = [f"decoding={decoding}", "decoding.tries=3", "decoding.test_at=[1,3,5]"]
    results, samples = scored(stage_of(*tries, "task.test=6", SMALL[-1]), tmp_path, embedded_folder)
    assert [s["try"] for s in samples] == [0, 1, 2] * 6
    task = results["tasks"]["arithmetic"]
    assert (task["n"], task["n_samples"]) == (6, 18)
    assert task["counted"] == ("votes" if decoding == "majority" else "tries")
    assert task["test_at"]["1"]["value"] <= task["test_at"]["3"]["value"]
    assert task["test_at"]["5"]["value"] is None


def test_problems_of_a_file_and_a_server_elsewhere(tmp_path, embedded_folder) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"id": i, "problem": f"What is {i} + 1?", "answer": i + 1} for i in range(5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    server = Server()
    try:
        stage = stage_of(
            f"problems={file}",
            "engine=openai",
            f"engine.urls=[{server.url}]",
            "engine.served_model=mine",
            "student=folder",
            f"student.model={embedded_folder}",
        )
        results, samples = scored(stage, tmp_path / "out", embedded_folder, problems=file)
    finally:
        server.close()
    assert [s["id"] for s in samples] == list("01234")
    assert {body["model"] for body in server.bodies} == {"mine"}
    assert results["tasks"]["arithmetic"]["n"] == 5


def test_a_tree_is_no_answer_to_a_conversation(tmp_path, embedded_folder) -> None:
    message = json.dumps({"role": "user", "content": "Say it."})
    turn = {"instruction_id_list": json.dumps(["punctuation:no_comma"]), "kwargs": '["{}"]'}
    row = {"key": "1:1:en", "language": "English"}
    for number in (1, 2):
        row |= {f"turn_{number}_prompt": message}
        row |= {f"turn_{number}_{name}": value for name, value in turn.items()}
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    stage = stage_of("tasks=[multi_if]", f"problems={file}", "decoding=mcts", SMALL[-1])
    with pytest.raises(UserError, match="decoding=mcts .* multi_if"):
        scored(stage, tmp_path / "out", embedded_folder, problems=file)
    stage = stage_of("tasks=[multi_if]", f"problems={file}", SMALL[-1])
    results, samples = scored(stage, tmp_path / "out", embedded_folder, problems=file)
    assert [s["turn"] for s in samples] == [1, 2]
    assert results["tasks"]["multi_if"]["by_turn"].keys() == {"1", "2"}


@pytest.mark.slow
def test_workers_on_ray_give_the_scores_of_one_machine(tmp_path, embedded_folder) -> None:
    samples = []
    for name, cluster in (("here", []), ("ray", ["cluster=ray", "cluster.workers=2"])):
        outputs = tmp_path / name / "outputs"
        outputs.mkdir(parents=True)
        (outputs / "models").symlink_to(embedded_folder.parent)
        done = subprocess.run(
            [sys.executable, str(ROOT / "evaluate.py"), "engine=scripted", "logger=none"]
            + ["task.test=30", f"outputs={outputs}", *cluster],
            env={**os.environ, "RAY_DEDUP_LOGS": "0", "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [scores] = (outputs / "scores").glob("*/samples.jsonl")
        samples.append(scores.read_bytes())
    assert samples[0] == samples[1]
