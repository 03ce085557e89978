"""The stages that a config asks for, from trees to scores, and how they hang together."""

from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from marco.config import ROOT, Config, near
from marco.errors import UserError
from marco.stages import Stage
from marco.tasks.registry import TaskConfig

# Raised by whoever changes code so that the same config gives another result: old folders are then
# left alone, and made anew where they are asked for.
REVISIONS = {"trees": 1, "dataset": 1, "student": 2, "reference": 2, "scores": 1}


def trees(config: Config) -> Stage | Path:
    """The trees of the training problems: `trees=<folder>` where given, else grown."""
    if config.trees is not None:
        return config.trees.absolute()
    return Stage(
        kind="trees",
        revision=REVISIONS["trees"],
        slug=f"{config.task.name}-{config.pattern.name}-{config.search.name}-{config.models.name}",
        config=_dump(
            config, "task", "models", "engine", "kinds", "pattern", "search", "search_seed"
        )
        | {"tasks": _tasks(config)},
    )


def sft_data(config: Config) -> Stage:
    """Correct chains of the wanted length."""
    bucket = config.length.sft.bucket
    return Stage(
        kind="dataset",
        revision=REVISIONS["dataset"],
        slug=f"sft-{bucket}",
        config=_dump(config, "data")
        | {"form": "sft", "bucket": bucket, "student": config.student.model},
        inputs={"trees": trees(config)},
    )


def pair_data(config: Config) -> Stage:
    """Preference pairs of the wanted length."""
    bucket = config.length.dpo.bucket
    return Stage(
        kind="dataset",
        revision=REVISIONS["dataset"],
        slug=f"pairs-{bucket}",
        config=_dump(config, "data", "pairs")
        | {"form": "pairs", "bucket": bucket, "student": config.student.model},
        inputs={"trees": trees(config)},
    )


def sft_student(config: Config) -> Stage:
    """The student after SFT: the shared baseline of all preference rows."""
    return Stage(
        kind="student",
        revision=REVISIONS["student"],
        slug=f"sft-{config.student.name}-s{config.seed}",
        config=_training(config, "sft"),
        inputs={"dataset": sft_data(config)},
        labels={"title": "SFT"},
    )


def reference(config: Config, start: Stage | None, dataset: Stage) -> Stage:
    """Log-probabilities of the pairs under the model that preference training starts from."""
    trainer = config.trainer.of("preference")
    names = ("precision", "micro_batch_tokens", "max_tokens", "threads", "accelerator")
    return Stage(
        kind="reference",
        revision=REVISIONS["reference"],
        slug=f"{config.student.name}-{dataset.slug}-s{config.seed}",
        config={"student": config.student.model} | {name: getattr(trainer, name) for name in names},
        inputs={"dataset": dataset} | ({"start": start} if start else {}),
    )


def student(config: Config) -> Stage | None:
    """The student of the config's recipe; None for the model as it is."""
    trains = config.recipe.trains
    start = sft_student(config) if "sft" in trains else None
    if "preference" not in trains:
        return start
    dataset = pair_data(config)
    inputs: dict[str, Stage | Path] = {"dataset": dataset}
    inputs["reference"] = reference(config, start, dataset)
    if start:
        inputs["start"] = start
    return Stage(
        kind="student",
        revision=REVISIONS["student"],
        slug=f"{config.recipe.name}-{config.student.name}-s{config.seed}",
        config=_training(config, "preference"),
        inputs=inputs,
        labels={"title": config.recipe.title},
    )


def scores(config: Config, trained: Stage | None, *, experiment: str) -> Stage:
    """The evaluation of a row's student."""
    inputs: dict[str, Stage | Path] = {"student": trained} if trained else {}
    return Stage(
        kind="scores",
        revision=REVISIONS["scores"],
        slug=f"{config.recipe.name}-{'-'.join(config.tasks)}-{config.split}-s{config.seed}",
        config=_dump(config, "engine", "decoding", "logger", "confidence", "split", "seed")
        | {
            "tasks": _tasks(config),
            "student": config.student.model,
            "row": config.recipe.name,
        },
        inputs=inputs,
        labels={
            "title": config.recipe.title,
            "student": config.student.name,
            "experiment": experiment,
            "settings": config.model_dump(mode="json"),
        },
    )


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
    return [
        config.task.model_dump(mode="json") if name == config.task.name else _task_file(name)
        for name in config.tasks
    ]


def _task_file(name: str) -> dict[str, Any]:
    folder = ROOT / "conf" / "task"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"tasks: unknown task {name!r}{near(name, known)}; there are {known}")
    values = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"), resolve=True)
    checked: Any = TypeAdapter(TaskConfig).validate_python(values)
    return checked.model_dump(mode="json")


def _dump(config: Config, *sections: str) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(sections))
