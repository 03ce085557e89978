"""What a stage does, in a process of its own.

The folder holds `config.yaml` (kind, config, inputs, labels), written by `marco.stages`; the stage
puts its files beside it.
"""

import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError

from marco.errors import UserError
from marco.manifest import CONFIG
from marco.processes import end_with_script, limit_threads, quiet
from marco.progress import Progress
from marco.termination import exit_on_sigterm


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a stage is to make (see `marco.stages.Stage`), and the folder that it goes to."""

    kind: str
    key: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Path]
    labels: Mapping[str, Any]
    cluster: Mapping[str, Any]
    out: Path

    @classmethod
    def read(cls, folder: Path) -> "Order":
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        inputs = {name: Path(path) for name, path in values.pop("inputs").items()}
        return cls(**values, inputs=inputs, out=folder)

    @property
    def models(self) -> Path:
        """Where models are kept: `outputs/models`, beside the stages."""
        return self.out.parent.parent / "models"

    def student(self, name: str = "start", *, weights: bool = True) -> Path:
        """The folder of the student that comes in: one of ours, or the model of the config.

        From the hub without its `weights` where a server has them.
        """
        from marco.engines.registry import model_folder

        return self.inputs.get(name) or model_folder(
            self.config["student"], cache=self.models, weights=weights
        )

    def dataset(self) -> Path | str:
        """The dataset that a student learns: a folder or file, or a name on the hub."""
        return self.inputs.get("dataset") or self.config["dataset"]


Work = Callable[[Order], None]


def grow_trees(order: Order) -> None:
    """Search a tree for every training problem."""
    from marco.search.grow import grow
    from marco.search.tree import read_trees

    config = dict(order.config)
    if "budgets" in order.inputs:  # plain sampling: the tokens of each problem's tree
        found = read_trees(order.inputs["budgets"])
        config["budgets"] = {tree.id: tree.usage["completion_tokens"] for tree in found}
    grow(config, order.labels["task"], _training_problems(order), **_places(order))


def estimate_trees(order: Order) -> None:
    """Search a sample of the training problems, and extrapolate what all of them would cost."""
    from marco.search.estimate import estimate

    sample = {name: order.config[name] for name in ("sample", "confidence")}
    task, problems = order.labels["task"], _training_problems(order)
    estimate(order.config, task, problems, **sample, **_places(order))


def build_dataset(order: Order) -> None:
    """Take SFT chains or preference pairs from trees, or SFT chains from a published set."""
    from marco.data.annotations import Annotations
    from marco.data.datasets import build_pairs, build_sft, save
    from marco.data.published import PublishedConfig, build_published
    from marco.data.statistics import format_stats
    from marco.engines.prompts import ChatTokenizer
    from marco.search.tree import read_trees

    data, form = order.config["data"], order.config["form"]
    encode = ChatTokenizer.load(order.student()).encode
    shared = {
        "max_tokens": data["max_tokens"],
        "classify": _classifier(order),
        "drop": data["drop_error_classes"],
    }
    if form == "published":
        config = PublishedConfig(**order.config["published"])
        if file := order.inputs.get("file"):
            config = config.model_copy(update={"file": str(file)})
        rows, stats = build_published(
            config,
            encode=encode.__wrapped__,  # its cache would hold all the long texts
            per_row=data["sft_per_tree"],
            rng=random.Random("published"),
            **shared,
        )
    else:
        bucket = order.config["bucket"]
        shared |= {"encode": encode, "bucket": bucket, "rng": random.Random(f"{form}/{bucket}")}
        given = order.inputs.get("annotations")
        shared["annotations"] = None if given is None else Annotations.read(given)
        trees = list(read_trees(order.inputs["trees"]))
        if form == "sft":
            rows, stats = build_sft(trees, per_tree=data["sft_per_tree"], **shared)
        else:
            rows, stats = build_pairs(trees, **order.config["pairs"], **shared)
    save(rows, order.out, stats=stats)
    print(format_stats(stats), flush=True)


def _classifier(order: Order) -> Callable[[str], Sequence[str]]:
    """Names the error classes of a chain, where some are to be dropped."""
    from marco.evaluation.error_classes import ErrorClassesConfig, classes_of_chain

    if not order.config["data"]["drop_error_classes"]:
        return lambda text: ()
    config = ErrorClassesConfig(**order.config["error_classes"])
    return lambda text: classes_of_chain(text, config=config)


def write_reference(order: Order) -> None:
    """Log-probabilities of a dataset under the model that training starts from."""
    from marco.training import fit

    settings = {k: v for k, v in order.config.items() if k not in ("student", "dataset")}
    fit.write_reference(
        start=order.student(),
        dataset=order.dataset(),
        out=order.out,
        progress=Progress,
        **settings,
    )


def train_student(order: Order) -> None:
    """Train a student and save it as a plain Hugging Face folder."""
    from marco.training import launch
    from marco.training.config import TrainerConfig

    trainer = TrainerConfig(**order.config["trainer"])
    student = order.student()  # made here, once, where several ranks would ask for it
    if launch.is_needed(trainer):
        if code := launch.launch(order.out, trainer):
            raise UserError(f"a rank of the training ended with exit code {code}; see above")
        return
    from marco.tasks.registry import make_task
    from marco.tasks.task import NoSplit
    from marco.training import fit
    from marco.training.config import LossConfig

    probe = None
    if trainer.samples.every_steps:
        task = make_task(_task(order))
        with suppress(NoSplit):  # then there is nothing to look at on the way
            probe = task, task.problems("validation")
    fit.train_student(
        start=student,
        dataset=order.dataset(),
        reference=order.inputs.get("reference"),
        out=order.out,
        loss=LossConfig(**order.config["loss"]),
        trainer=trainer,
        seed=order.config["seed"],
        run=order.key,
        probe=probe,
        progress=Progress if launch.is_first() else None,
    )


def score(order: Order) -> None:
    """Evaluate a student on its tasks, or grade responses that are there."""
    config = {**order.config, "tasks": order.labels["tasks"]}  # there they are whole
    if "responses" in order.inputs:
        from marco.evaluation.grade import grade
        from marco.evaluation.start import make_tasks, problems_of

        [task] = make_tasks(config["tasks"])
        grade(
            config,
            order.labels,
            task=task,
            problems=problems_of(task, config, order.inputs.get("problems")),
            responses=order.inputs["responses"],
            out=order.out,
        )
        return
    from marco.evaluation.runner import evaluate

    evaluate(
        config,
        order.labels,
        student=order.student("student", weights=order.config["engine"]["name"] == "vllm"),
        problems=order.inputs.get("problems"),
        **_places(order),
    )


def _task(order: Order) -> Any:
    from marco.tasks.registry import TaskConfig

    return TypeAdapter(TaskConfig).validate_python(order.labels["task"])


def _training_problems(order: Order) -> Sequence[Any]:
    from marco.tasks.registry import make_task

    return make_task(_task(order)).problems("train")


def _places(order: Order) -> dict[str, Any]:
    return {
        "cluster": order.cluster,
        "run": order.key,
        "out": order.out,
        "models": order.models,
    }


WORK: dict[str, Work] = {
    "trees": grow_trees,
    "estimate": estimate_trees,
    "dataset": build_dataset,
    "reference": write_reference,
    "student": train_student,
    "scores": score,
}


def run(folder: Path) -> None:
    """Do the work of the stage in `folder`, and end this process: 0, or 2 with one clear line."""
    sys.exit(_run(folder))


def _run(folder: Path) -> int:
    end_with_script()
    exit_on_sigterm()
    order = Order.read(folder)
    limit_threads(order.cluster["threads"])
    Progress.state = folder.with_suffix(".progress")  # beside `.<stage>.part`
    try:
        quiet()
        WORK[order.kind](order)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{place}", file=sys.stderr, flush=True)
        return 2
    except SafetensorError as error:  # what saving weights raises on a full disk
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
