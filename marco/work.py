"""What a stage does, in a process of its own.

The folder holds `config.yaml` (kind, config, inputs, labels), written by `marco.stages`; the stage
puts its files beside it.
"""

import json
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError

from marco.errors import UserError

Work = Callable[[Mapping[str, Any], Mapping[str, Path], Mapping[str, Any], Path], None]


def grow_trees(
    config: Mapping[str, Any], inputs: Mapping[str, Path], labels: Mapping[str, Any], out: Path
) -> None:
    """Search a tree for every training problem."""
    from marco.search.grow import grow
    from marco.tasks.registry import TaskConfig, make_task

    task = make_task(TypeAdapter(TaskConfig).validate_python(labels["task"]))
    grow(config, task, task.problems("train"), out=out, cache=_cache(out))


def build_dataset(
    config: Mapping[str, Any], inputs: Mapping[str, Path], labels: Mapping[str, Any], out: Path
) -> None:
    """Take SFT chains or preference pairs from trees."""
    from marco.data.datasets import build_pairs, build_sft, save
    from marco.data.statistics import format_stats
    from marco.engines.prompts import ChatTokenizer
    from marco.engines.registry import model_folder
    from marco.search.tree import read_trees

    encode = ChatTokenizer.load(model_folder(config["student"], cache=_cache(out))).encode
    trees = list(read_trees(inputs["trees"]))
    shared = {
        "encode": encode,
        "bucket": config["bucket"],
        "max_tokens": config["data"]["max_tokens"],
        "rng": random.Random(f"{config['form']}/{config['bucket']}"),
    }
    if config["form"] == "sft":
        rows, stats = build_sft(trees, per_tree=config["data"]["sft_per_tree"], **shared)
    else:
        rows, stats = build_pairs(trees, **config["pairs"], **shared)
    save(rows, out, stats=stats)
    print(format_stats(stats), flush=True)


def write_reference(
    config: Mapping[str, Any], inputs: Mapping[str, Path], labels: Mapping[str, Any], out: Path
) -> None:
    """Log-probabilities of a dataset under the model that training starts from."""
    from marco.progress import Progress
    from marco.training import fit

    settings = {k: v for k, v in config.items() if k != "student"}
    fit.write_reference(
        start=_start(config, inputs, out),
        dataset=inputs["dataset"],
        out=out,
        progress=Progress,
        **settings,
    )


def train_student(
    config: Mapping[str, Any], inputs: Mapping[str, Path], labels: Mapping[str, Any], out: Path
) -> None:
    """Train a student and save it as a plain Hugging Face folder."""
    from marco.progress import Progress
    from marco.training import fit
    from marco.training.config import LossConfig, TrainerConfig

    fit.train_student(
        start=_start(config, inputs, out),
        dataset=inputs["dataset"],
        reference=inputs.get("reference"),
        out=out,
        loss=LossConfig(**config["loss"]),
        trainer=TrainerConfig(**config["trainer"]),
        seed=config["seed"],
        lineage={"title": labels["title"], "student": config["student"]}
        | {name: path.name for name, path in inputs.items()},
        progress=Progress,
    )


def score(
    config: Mapping[str, Any], inputs: Mapping[str, Path], labels: Mapping[str, Any], out: Path
) -> None:
    """Evaluate a student on its tasks."""
    from marco.evaluation.runner import evaluate

    evaluate(config, labels, student=_start(config, inputs, out, "student"), out=out)


WORK: dict[str, Work] = {
    "trees": grow_trees,
    "dataset": build_dataset,
    "reference": write_reference,
    "student": train_student,
    "scores": score,
}


def _cache(out: Path) -> Path:
    """Where models are kept: `outputs/models`, beside the stages."""
    return out.parent.parent / "models"


def _start(
    config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path, name: str = "start"
) -> Path:
    from marco.engines.registry import model_folder

    return inputs[name] if name in inputs else model_folder(config["student"], cache=_cache(out))


def quiet() -> None:
    """Libraries' progress bars and advice would drown the lines that say what runs."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("WANDB_SILENT", "true")
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries among each other
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def run(folder: Path, threads: int | None) -> None:
    """Do the work of the stage in `folder`, and end this process: 0, or 2 with one clear line.

    `threads` are its CPU threads, in torch and what follows torch (vLLM in this process).
    """
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    sys.exit(_run(folder))


def _run(folder: Path) -> int:
    end_with_script()
    order = json.loads((folder / "config.yaml").read_text(encoding="utf-8"))
    inputs = {name: Path(path) for name, path in order["inputs"].items()}
    try:
        quiet()
        WORK[order["kind"]](order["config"], inputs, order["labels"], folder)
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


def end_with_script() -> None:
    """A stage whose script was killed must not write on beside the one that takes its place."""
    script = parent_process()
    if script is None:
        return

    def watch() -> None:
        script.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
