"""The stages that a config asks for, from trees to scores, and how they hang together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from marco.config import ROOT, Config
from marco.data.contamination import check_disjoint
from marco.engines.registry import EMBEDDED
from marco.errors import UserError, near
from marco.identity import without_volatile
from marco.losses import PREFERENCE_LOSSES
from marco.search.tree import read_trees
from marco.stages import Stage
from marco.tasks.problem import Problem, Split
from marco.tasks.registry import TaskConfig, make_task
from marco.tasks.task import Task

Inputs = dict[str, Stage | Path]

EVALUATED: tuple[Split, ...] = ("validation", "test")
# What verdicts and figures depend on, whoever made the replies.
SCORED = ("error_classes", "confidence", "resamples", "split", "seed")
# Of a task's section, what decides on the problems of a split. A training file holds the validation
# problems too.
PROBLEMS_OF: dict[Split, set[str]] = {
    "train": {"train", "validation", "train_file", "train_hub"},
    "validation": {"validation", "validation_file", "train_file", "train_hub"},
    "test": {"test", "test_file", "test_hub", "years", "sources"},
}
NOT_IN_TREES = {"test", "test_file", "response_tokens"}
# Raised by whoever changes code so that the same config gives another result: old folders are then
# left alone, and made anew where they are asked for.
REVISIONS = {"trees": 2, "dataset": 2, "student": 6, "reference": 4, "scores": 4}


def trees(config: Config) -> Stage | Path:
    """The trees of the training problems: `trees=<folder>` where given, else grown."""
    if config.trees is not None:
        return config.trees.absolute()
    checkpoints = {name: c.model for name, c in config.models.checkpoints.items()}
    sources = checkpoints | {"train_file": getattr(config.task, "train_file", None)}
    return Stage(
        kind="trees",
        revision=REVISIONS["trees"],
        slug=f"{config.task.name}-{config.pattern.name}-{config.search.name}-{config.models.name}",
        config=_dump(config, "models", "engine", "kinds", "pattern", "search", "search_seed")
        # Which problems are tested, and how students reply to them, has no part in the trees.
        | {"task": config.task.model_dump(mode="json", exclude=NOT_IN_TREES)},
        inputs=_local(sources) | _budgets(config),
        labels={"task": config.task.model_dump(mode="json")},
    )


def _budgets(config: Config) -> Inputs:
    """Of plain sampling, the trees of the search that it spends as many tokens as."""
    if config.search.count != "plain":
        return {}
    search = config.search.model_copy(update={"name": "distinct", "count": "distinct"})
    return {"budgets": trees(config.model_copy(update={"search": search}))}


def estimate(config: Config) -> Stage:
    """What the trees would cost, from a sample of the problems."""
    grown = trees(config.model_copy(update={"trees": None}))
    assert isinstance(grown, Stage)
    sample = {"sample": config.search.dry_run_problems, "confidence": config.confidence}
    return replace(grown, kind="estimate", config={**grown.config, **sample})


def check_contamination(config: Config) -> None:
    """UserError where a problem that the students learn from is one that they are evaluated on."""
    learnt, name = _learnt(config)
    for values in _tasks(config):
        task = make_task(TypeAdapter(TaskConfig).validate_python(values))
        for split in EVALUATED:
            check_disjoint(
                learnt,
                _evaluated(task, config, split),
                train_name=name,
                test_name=f"the {split} problems of {task.name}",
            )


def _evaluated(task: Task, config: Config, split: Split) -> list[Problem]:
    """The problems of a split; of one that is not evaluated now, where they can be had."""
    if split == config.split:
        return task.problems(split) if config.problems is None else task.read(config.problems)
    try:
        return task.problems(split)
    except UserError:
        return []


def _learnt(config: Config) -> tuple[list[Problem], str]:
    """The problems that students learn from, and what they are called."""
    learnt: list[Problem] = []
    names: list[str] = []
    if config.trees is not None:
        trees = read_trees(config.trees)
        learnt += [Problem(id=t.id, problem=t.problem, answer=t.gold) for t in trees]
        names.append(f"the problems of {config.trees}")
    elif _grows_trees(config):
        learnt += make_task(config.task).problems("train")
        names.append(f"the training problems of {config.task.name}")
    if config.sft_data is None and config.data.published is not None:
        from marco.data.published import published_problems

        learnt += published_problems(config.data.published)
        names.append(f"those of {config.data.published.name}")
    for source in filter(None, (config.sft_data, config.pair_data)):
        from marco.training.examples import read_problems

        outside = enumerate(read_problems(source))
        learnt += [Problem(id=f"{source}:{i}", problem=p, answer="") for i, p in outside]
        names.append(f"those of {source}")
    return learnt, " and ".join(names)


def _grows_trees(config: Config) -> bool:
    """Whether chains or pairs are taken from trees; without a recipe, trees are what is wanted."""
    trains = config.recipe.trains
    chains = "sft" in trains and config.sft_data is None and config.data.published is None
    return chains or ("preference" in trains and config.pair_data is None) or not trains


def sft_data(config: Config) -> Stage | str:
    """Correct chains of the wanted length, or the dataset that `sft_data` names."""
    if config.sft_data is not None:
        return config.sft_data
    if config.data.published is not None:
        return Stage(
            kind="dataset",
            revision=REVISIONS["dataset"],
            slug=f"sft-{config.data.published.name}",
            config=_data_section(config)
            | {"form": "published", "published": config.data.published.model_dump(mode="json")}
            | {"student": config.student.model},
            inputs=_local({"model": config.student.model, "file": config.data.published.file}),
        )
    bucket = config.length.sft.bucket
    return Stage(
        kind="dataset",
        revision=REVISIONS["dataset"],
        slug=f"sft-{bucket}",
        config=_data_section(config)
        | {"form": "sft", "bucket": bucket, "student": config.student.model},
        inputs={"trees": trees(config)}
        | _local({"model": config.student.model})
        | _annotated(config),
    )


def pair_data(config: Config) -> Stage | str:
    """Preference pairs of the wanted length, or the dataset that `pair_data` names."""
    if config.pair_data is not None:
        return config.pair_data
    bucket = config.length.dpo.bucket
    return Stage(
        kind="dataset",
        revision=REVISIONS["dataset"],
        slug=f"pairs-{bucket}",
        config=_data_section(config)
        | _dump(config, "pairs")
        | {"form": "pairs", "bucket": bucket, "student": config.student.model},
        inputs={"trees": trees(config)}
        | _local({"model": config.student.model})
        | _annotated(config),
    )


def sft_student(config: Config) -> Stage:
    """The student after SFT: the shared baseline of all preference rows."""
    dataset = sft_data(config)
    return Stage(
        kind="student",
        revision=REVISIONS["student"],
        slug=f"sft-{config.student.name}-s{config.seed}",
        config=_training(config, "sft") | _named(dataset),
        inputs=_data(dataset) | _local({"model": config.student.model}),
        labels={"title": "SFT"} | _probed(config),
    )


def reference(config: Config, start: Stage | None, dataset: Stage | str) -> Stage:
    """Log-probabilities of the pairs under the model that preference training starts from."""
    trainer = config.trainer.of("preference")
    names = ("precision", "micro_batch_tokens", "max_tokens", "accelerator")
    return Stage(
        kind="reference",
        revision=REVISIONS["reference"],
        slug=f"{config.student.name}-{_slug(dataset)}-s{config.seed}",
        config={"student": config.student.model}
        | {name: getattr(trainer, name) for name in names}
        | _named(dataset),
        inputs=_data(dataset) | _start(config, start),
    )


def student(config: Config) -> Stage | None:
    """The student of the config's recipe; None for the model as it is."""
    trains = config.recipe.trains
    start = sft_student(config) if "sft" in trains else None
    if "preference" not in trains:
        return start
    dataset = pair_data(config)
    inputs = _data(dataset) | _start(config, start)
    assert config.loss.preference is not None  # checked with the config
    if PREFERENCE_LOSSES[config.loss.preference.name].uses_reference:
        inputs["reference"] = reference(config, start, dataset)
    return Stage(
        kind="student",
        revision=REVISIONS["student"],
        slug=f"{_loss_name(config)}-{config.student.name}-s{config.seed}",
        config=_training(config, "preference") | _named(dataset),
        inputs=inputs,
        labels={"title": config.recipe.title} | _probed(config),
    )


def _loss_name(config: Config) -> str:
    """What a folder is called by its loss: rows of several tables that are one stage share it."""
    assert config.loss.preference is not None  # checked with the config
    parts = [config.loss.preference.name]
    parts += ["joint"] if config.loss.alpha else []
    parts += [f"masked_{config.loss.mask}"] if config.loss.mask != "none" else []
    return "-".join(parts)


def scores(config: Config, trained: Stage | None, *, row: str | None = None) -> Stage:
    """The evaluation of a student; its row is the table's unless it is named otherwise."""
    if config.engine.name == "openai" and trained is not None:
        raise UserError(
            "engine=openai: no server has the student that this would train. Train it with "
            "train.py, serve its folder, and evaluate it with student=<the folder>"
        )
    title = row or config.row_title
    row = row or config.row
    student_slug = trained.slug if trained else f"{config.student.name}-s{config.seed}"
    tasks = _tasks(config)
    if config.problems is not None and len(tasks) > 1:
        raise UserError(f"problems={config.problems} is of one task, but tasks={config.tasks}")
    counted = [_counted(task, config) for task in tasks]
    sections = ["engine", "decoding", *SCORED]
    if config.decoding.method == "mcts":
        sections += ["kinds", "pattern", "search"]
    return Stage(
        kind="scores",
        revision=REVISIONS["scores"],
        slug=f"{student_slug}-{'-'.join(config.tasks)}-{config.split}",
        config=_dump(config, *sections) | {"tasks": counted, "student": config.student.model},
        inputs=_start(config, trained, name="student") | _files(counted, config),
        labels={
            "tasks": tasks,
            "row": row,
            "title": title,
            "student": config.student.name,
            "settings": without_volatile(config.model_dump(mode="json")),
        },
    )


def grades(config: Config) -> Stage:
    """The scores of responses that are there: no model, no engine."""
    tasks = _tasks(config)
    if len(tasks) > 1:
        raise UserError(f"responses={config.responses} are to one task, but tasks={config.tasks}")
    assert config.responses is not None
    counted = [_counted(task, config) for task in tasks]
    name = config.responses.stem
    return Stage(
        kind="scores",
        revision=REVISIONS["scores"],
        slug=f"{name}-{config.tasks[0]}",
        config=_dump(config, "decoding", *SCORED) | {"tasks": counted},
        inputs={"responses": config.responses.absolute()} | _files(counted, config),
        labels={
            "tasks": tasks,
            "row": name,
            "title": name,
            "student": name,
            "settings": without_volatile(config.model_dump(mode="json")),
        },
    )


def _counted(task: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """A task's section without what cannot change its scores.

    That is what decides on other problems than those that are evaluated, the worked examples of the
    search (`decoding.shots` are the student's), and a length of replies that is not used.
    """
    unused = set().union(*PROBLEMS_OF.values()) | {"shots"}
    if config.problems is None:
        unused -= PROBLEMS_OF[config.split]
    decoding = config.decoding
    if config.responses or decoding.max_tokens is not None or decoding.method == "mcts":
        unused.add("response_tokens")
    return {name: value for name, value in task.items() if name not in unused}


def _files(tasks: Sequence[Mapping[str, Any]], config: Config) -> Inputs:
    """The files that problems are read from: they count by their content."""
    files = {}
    for task in tasks:
        files |= {f"{task['name']}.{name}": path for name, path in _named_files(task)}
    given = {} if config.problems is None else {"problems": config.problems.absolute()}
    return _local(files) | given


def _named_files(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, path) of every file that a task's section names, at any depth."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", path) for inner, path in _named_files(value))
        elif name.endswith("file") and value is not None:
            yield name, value


def _data_section(config: Config) -> dict[str, Any]:
    """What chains are taken by; the thresholds of error classes where they are a filter."""
    filters = ["error_classes"] if config.data.drop_error_classes else []
    data = config.data.model_dump(mode="json", exclude={"annotations", "published"})
    return {"data": data} | _dump(config, *filters)


def _annotated(config: Config) -> Inputs:
    """The annotations, which count by their content; a missing file is told with the key."""
    path = config.data.annotations
    return {} if path is None else {"annotations": Path(path).absolute()}


def _start(config: Config, start: Stage | None, *, name: str = "start") -> Inputs:
    """The student that a stage starts from: one of ours, or the model of the config."""
    return {name: start} if start else _local({"model": config.student.model})


def _data(dataset: Stage | str) -> Inputs:
    """The dataset as an input, where it is a stage, a folder or a file."""
    if isinstance(dataset, Stage):
        return {"dataset": dataset}
    return _local({"dataset": dataset})


def _named(dataset: Stage | str) -> dict[str, Any]:
    """What the config says of a dataset that is no input: its name on the hub."""
    return {} if _data(dataset) else {"dataset": dataset}


def _slug(dataset: Stage | str) -> str:
    return dataset.slug if isinstance(dataset, Stage) else Path(dataset).stem


def _probed(config: Config) -> dict[str, Any]:
    """The task whose validation problems a student is sampled on."""
    return {"task": config.task.model_dump(mode="json")}


def _local(sources: Mapping[str, str | None]) -> Inputs:
    """The sources that are files or folders here: they count by their content, not by their name.

    What is no path (a hub's name, `embedded`) is known by its name, in the config.
    """
    return {
        name: Path(source).absolute()
        for name, source in sources.items()
        if source not in (None, EMBEDDED) and Path(source).exists()
    }


def _training(config: Config, kind: Literal["sft", "preference"]) -> dict[str, Any]:
    loss = config.sft_loss if kind == "sft" else config.loss
    return {
        "student": config.student.model,
        "loss": loss.model_dump(mode="json"),
        "trainer": config.trainer.of(kind).model_dump(mode="json"),
        "seed": config.seed,
    }


def _tasks(config: Config) -> list[dict[str, Any]]:
    """The configs of the tasks that are evaluated; `task` is taken as it was overridden."""
    others = [name for name in config.tasks if name != config.task.name]
    for name in config.task_overrides:
        if name not in others:
            raise UserError(
                f"task_overrides.{name}: tasks={config.tasks} has no such task beside "
                f"task={config.task.name}, whose keys are task.<key>{near(name, others)}"
            )
    return [
        config.task.model_dump(mode="json")
        if name == config.task.name
        else _task_file(name, config.task_overrides.get(name, {}))
        for name in config.tasks
    ]


def _task_file(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    folder = ROOT / "conf" / "task"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"tasks: unknown task {name!r}{near(name, known)}; there are {known}")
    merged = OmegaConf.merge(OmegaConf.load(folder / f"{name}.yaml"), changes)
    values: Any = OmegaConf.to_container(merged, resolve=True)
    try:
        checked: Any = TypeAdapter(TaskConfig).validate_python(values)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        raise UserError(f"task_overrides.{name}: {told}") from error
    return checked.model_dump(mode="json")


def _dump(config: Config, *sections: str) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(sections))
