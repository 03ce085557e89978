"""Evaluates a student on its tasks, all of them in one engine start; every reply is kept."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marco.driver.run import findings, run_all
from marco.driver.scheduler import Placed
from marco.errors import UserError
from marco.evaluation.ask import STUDENT, Question, Replies
from marco.evaluation.grade import write_scores
from marco.evaluation.start import make_tasks, problems_of, question_starter, reply_limits


def evaluate(
    config: Mapping[str, Any],
    labels: Mapping[str, Any],
    *,
    student: Path,
    problems: Path | None,
    cluster: Mapping[str, Any],
    run: str,
    out: Path,
    models: Path,
) -> None:
    """Put every problem to the student, then write `results.json` and `samples.jsonl` to `out`.

    `config` holds the sections engine, decoding, tasks, split, error_classes, confidence,
    resamples and seed, and for tree decoding those of the search. The problems are those of
    `problems` where it is given, a file for the one task. What was answered before an evaluation
    was broken off is not asked again.
    """
    tasks = make_tasks(config["tasks"])
    asked = {task.name: problems_of(task, config, problems) for task in tasks}
    questions = [Question(task=t.name, problem=p) for t in tasks for p in asked[t.name]]
    if config["decoding"]["method"] == "mcts":
        talks = [t.name for t in tasks if any(p.follow_ups for p in asked[t.name])]
        if talks:
            raise UserError(
                f"decoding=mcts answers one turn, but {', '.join(talks)} has conversations: "
                "take another decoding"
            )
    limits = reply_limits(config)
    for name, limit in limits.items():
        if limit == config["engine"].get("max_model_len"):
            print(
                f"  {name}: prompt and reply share engine.max_model_len={limit}, and replies end "
                "there: raise it if the model reads more, or lower decoding.max_tokens",
                flush=True,
            )
    started = time.monotonic()
    run_all(
        asking(config, student),
        question_starter,
        questions,
        label="replies",
        wanted=None,
        order=longest_first,
        cluster=cluster,
        run=run,
        out=out,
        models=models,
    )
    seconds = round(time.monotonic() - started, 1)
    lines = iter(findings(out, run=run))
    graded = []
    for task in tasks:
        found = [Replies.from_json(next(lines)) for _ in asked[task.name]]
        expected = [Question(task=task.name, problem=problem).id for problem in asked[task.name]]
        if [replies.id for replies in found] != expected:
            raise UserError(
                f"the problems of {task.name} have changed since this evaluation was begun: "
                f"delete {out / 'journal'}"
            )
        graded.append((task, asked[task.name], [replies.replies for replies in found]))
    write_scores(
        graded,
        config,
        labels,
        keys={"student": student.name},
        seconds=seconds,
        max_tokens=limits,
        out=out,
    )


def longest_first(questions: Sequence[Placed]) -> list[Placed]:
    """Conversations first, then long problems: none of them is left alone at the end."""

    def size(placed: Placed) -> tuple[int, int]:
        problem = placed[1].problem
        return len(problem.follow_ups), len(problem.problem)

    return sorted(questions, key=size, reverse=True)


def asking(config: Mapping[str, Any], student: Path) -> Mapping[str, Any]:
    """The config as workers read it: the student is the one model, whatever it writes."""
    engine, decoding = dict(config["engine"]), config["decoding"]
    if "tensor_parallel" in engine:  # the models of the search may be spread over more GPUs
        engine["tensor_parallel"] = decoding["tensor_parallel"]
    if "served_model" in engine:
        engine["served_model"] = engine["served_model"] or config["student"]
    checkpoint = {
        "model": str(student),
        "temperature": decoding["temperature"],
        "top_p": decoding["top_p"],
        "engine": {},
    }
    roles = dict.fromkeys(config.get("kinds", {}), STUDENT)
    models = {"name": STUDENT, "checkpoints": {STUDENT: checkpoint}, "roles": roles}
    return {**config, "engine": engine, "models": models, "search_seed": config["seed"]}
