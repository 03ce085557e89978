"""From the config to the walk of a question: prompts, tries, and the form of decoding."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.driver.scheduler import Walk
from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Sampling
from marco.errors import UserError
from marco.evaluation.ask import STUDENT, Question, converse, search
from marco.evaluation.config import DecodingConfig
from marco.search.start import SearchStart
from marco.tasks.examples import plain_chat
from marco.tasks.problem import Problem
from marco.tasks.registry import TaskConfig, make_task
from marco.tasks.task import Task

ANY = Problem(id="", problem="?", answer="")  # worked examples are there for any problem


def question_starter(
    config: Mapping[str, Any], models: Path
) -> tuple[Callable[[Question], Walk], Mapping[str, Path]]:
    """What begins the walk of a question, and the folder of the student.

    `config` holds the sections engine, decoding, tasks and models (of the one model `student`); for
    `decoding.method=mcts` also kinds, pattern, search and search_seed.
    """
    decoding = DecodingConfig(**config["decoding"])
    tasks = {task.name: task for task in make_tasks(config["tasks"], shots=decoding.shots)}
    for task in tasks.values():
        if (there := len(task.examples(ANY))) < decoding.shots:
            raise UserError(
                f"decoding.shots={decoding.shots}: {task.name} has {there} worked examples"
            )
    if decoding.method == "mcts":
        begin = {}
        for name, task in tasks.items():
            trees = SearchStart(config, task, models=models)
            trees.write_prompts(ANY)  # what cannot be written is told before an engine starts
            begin[name] = partial(
                search, begin=trees, changes=decoding.search, tries=decoding.tries
            )
    else:
        tokenizer = ChatTokenizer.load(_student(config))
        drawn: Any = {"temperature": decoding.temperature, "top_p": decoding.top_p}
        begin = {
            name: partial(
                _converse,
                task=tasks[name],
                tokenizer=tokenizer,
                sampling=Sampling(max_tokens=limit, **drawn),
                tries=decoding.tries,
            )
            for name, limit in reply_limits(config).items()
        }
    return (lambda question: begin[question.task](question)), {STUDENT: _student(config)}


def make_tasks(configs: list[Mapping[str, Any]], *, shots: int | None = None) -> list[Task]:
    """The tasks of their sections; `shots` is how many worked examples they are to show."""
    tasks = []
    for values in configs:
        changes = {"shots": shots} if "shots" in values and shots is not None else {}
        config: Any = TypeAdapter(TaskConfig).validate_python({**values, **changes})
        tasks.append(make_task(config))
    return tasks


def reply_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """The tokens that a reply has at most, by task; {} for trees: their nodes have own limits.

    The decoding's, or else the task's, and no more than the engine has room for.
    """
    if config["decoding"]["method"] == "mcts":
        return {}
    wanted = {
        t["name"]: config["decoding"]["max_tokens"] or t["response_tokens"] for t in config["tasks"]
    }
    return {
        name: min(limit, config["engine"].get("max_model_len", limit))
        for name, limit in wanted.items()
    }


def problems_of(task: Task, config: Mapping[str, Any], file: Path | None) -> Sequence[Problem]:
    """The problems of a file where one is given, else the task's own."""
    return task.read(file) if file is not None else task.problems(config["split"])


def _converse(question: Question, *, task: Task, **settings: Any) -> Walk:
    return converse(question, shots=plain_chat(task.examples(question.problem)), **settings)


def _student(config: Mapping[str, Any]) -> Path:
    return Path(config["models"]["checkpoints"][STUDENT]["model"])
