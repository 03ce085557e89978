"""Evaluates a student: all tasks in one engine start, every output kept."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Completion, Engine, Request, Sampling
from marco.engines.registry import EngineConfig, make_engine
from marco.engines.vllm import VLLMConfig
from marco.evaluation.metrics import summarise
from marco.progress import Progress
from marco.tasks.problem import Problem
from marco.tasks.registry import Task, TaskConfig, make_task

SCHEMA = 1


def evaluate(
    config: Mapping[str, Any], labels: Mapping[str, Any], *, student: Path, out: Path
) -> None:
    """Sample the student on every task and write `results.json` and `samples.jsonl` to `out`.

    `config` holds the sections engine, decoding, tasks, split, confidence, row and seed.
    """
    tokenizer = ChatTokenizer.load(student)
    checked: Any = TypeAdapter(EngineConfig).validate_python(config["engine"])
    tasks = [make_task(TypeAdapter(TaskConfig).validate_python(t)) for t in config["tasks"]]
    problems = {task.name: task.problems(config["split"]) for task in tasks}
    decoding = config["decoding"]
    if isinstance(checked, VLLMConfig):  # the models of the search may be spread over more GPUs
        checked = checked.model_copy(update={"tensor_parallel": decoding["tensor_parallel"]})
    engine = make_engine(checked, student, model=labels["student"])
    sampling = Sampling(
        temperature=decoding["temperature"],
        top_p=decoding["top_p"],
        max_tokens=decoding["max_tokens"],
    )
    results = {}
    with (out / "samples.jsonl").open("w", encoding="utf-8") as file:
        for task in tasks:
            started = time.monotonic()
            samples = sample(task, problems[task.name], engine, tokenizer, sampling)
            seconds = round(time.monotonic() - started, 1)
            file.writelines(json.dumps(s, ensure_ascii=False) + "\n" for s in samples)
            results[task.name] = summarise(samples, confidence=config["confidence"]) | {
                "seconds": seconds
            }
            print(f"  {_line(task.name, results[task.name])}", flush=True)
    engine.close()
    record = {
        "schema": SCHEMA,
        "student": labels["student"],
        "row": config["row"],
        "title": labels["title"],
        "seed": config["seed"],
        "split": config["split"],
        "tasks": results,
        "config": dict(config),
        "keys": {"student": str(student.name)},
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")


def sample(
    task: Task,
    problems: Sequence[Problem],
    engine: Engine,
    tokenizer: ChatTokenizer,
    sampling: Sampling,
) -> list[dict[str, Any]]:
    """One sample per problem, in the problems' order; the student sees the bare problem."""
    for problem in problems:
        engine.submit(
            Request(
                key=f"{task.name}/{problem.id}",
                problem=problem.id,
                model="student",
                kind="chain",
                prompt_ids=tokenizer.prompt([{"role": "user", "content": problem.problem}]),
                n=1,
                stop=(),
                sampling=sampling,
            )
        )
    progress = Progress(f"evaluate {task.name}", len(problems), "problems")
    done: dict[str, Completion] = {}
    tokens = 0
    while len(done) < len(problems):
        for response in engine.poll():
            done[response.key] = response.completions[0]
            tokens += response.completions[0].tokens
        progress.update(len(done), tokens_per_s=progress.rate(tokens))
    progress.close()
    return [_row(task, problem, done[f"{task.name}/{problem.id}"]) for problem in problems]


def _row(task: Task, problem: Problem, completion: Completion) -> dict[str, Any]:
    verdict = task.verify(completion.text, problem)
    return {
        "task": task.name,
        "id": problem.id,
        "prompt": problem.problem,
        "response": completion.text,
        "answer": verdict.answer,
        "gold": problem.answer,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "error_class": None,
        "tokens": completion.tokens,
        "finish": completion.finish,
    }


def _line(name: str, result: Mapping[str, Any]) -> str:
    low, high = result["accuracy_interval"]
    low_no, high_no = result["no_answer_interval"]
    return (
        f"{name}: n {result['n']}, accuracy {result['accuracy']:.1%} [{low:.1%}, {high:.1%}], "
        f"no answer {result['no_answer']:.1%} [{low_no:.1%}, {high_no:.1%}]"
    )
