"""Rows whose stages are made by hand: their real keys and folders, with small contents.

python -m tests.reporting.logged_rows OUTPUTS WHAT [override ...]
logs a row as its own process does; WHAT is `finish`, `train` (for ever, after two steps), or `fail`
(then too); standard input is what models write, or the error.
"""

import json
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from marco import pipeline
from marco.evaluation.error_classes import PRIMARY
from marco.evaluation.metrics import summarise
from marco.manifest import MANIFEST, hidden
from marco.reporting.allowlist import Redactor
from marco.reporting.loggers import make_logger
from marco.reporting.loggers.guarded import GuardedLogger
from marco.reporting.row_log import logged, order_of
from marco.reporting.row_watch import watch
from marco.search.tree import Node, Tree, write_trees
from marco.stages import Stage, _seal
from marco.training.live import LiveLog
from marco.training.pairs_csv import COLUMNS

from ..test_config import checked

STEPS = 4
VERDICTS = ["correct", "wrong", "no_answer", "correct"]


@cache
def _row(*overrides: str) -> Any:
    return checked("recipe=cdpo", "engine=scripted", "logger=csv", "logger.every_s=0.1", *overrides)


def config_of(outputs: Path, *overrides: str) -> Any:
    """A row of preference training, on its own."""
    return _row(*overrides).model_copy(update={"outputs": outputs})


def scores_of(config: Any) -> Stage:
    return pipeline.scores(config, pipeline.student(config))


def below(stage: Stage) -> Iterator[Stage]:
    """A stage and its inputs, in the order of making."""
    for value in stage.inputs.values():
        if isinstance(value, Stage):
            yield from below(value)
    yield stage


def finish_all(config: Any, *, text: str = "hm", until: str | None = None) -> None:
    """Make the stages of a row; `until` names the kind of the first that stays unmade."""
    for stage in below(scores_of(config)):
        if stage.kind == until:
            return
        finish(stage, config.outputs, text=text)


def finish(stage: Stage, outputs: Path, *, text: str = "hm") -> Path:
    """Write a stage's files, with `text` wherever a model has written, and its manifest."""
    folder = stage.folder(outputs)
    if (folder / MANIFEST).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    CONTENTS[stage.kind](folder, text)
    order = {"kind": stage.kind, "config": dict(stage.config)}
    (folder / "config.yaml").write_text(json.dumps(order))
    manifest = {
        "schema": 1,
        "stage": stage.kind,
        "key": stage.key,
        "status": "finished",
        "inputs": {
            name: {"path": str(value.folder(outputs)), "key": value.key}
            for name, value in stage.inputs.items()
            if isinstance(value, Stage)
        },
        "labels": dict(stage.labels),
        "versions": {"marco": "0.1.0"},
        "seconds": 1.5,
        "files": _seal(folder),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def train(stage: Stage, outputs: Path, steps: int, *, half: bool = False) -> Path:
    """Write what a training has told after so many steps, and `half` of a line more."""
    live = LiveLog(hidden(stage.folder(outputs), "part"))
    live.begin([{"loss": 1 / i} for i in range(1, steps + 1)])
    with live.path.open("a") as file:
        file.write('{"step": 99, "lo' if half else "")
    return live.path.parent


def log(config: Any, *endings: str | None) -> None:
    """Log a row in this process: it goes on for each None in `endings`, and ends with the last."""
    told = iter(endings or ("",))
    order = order_of(config, scores_of(config))
    place = Path(order.outputs) / config.logger.name
    logger = GuardedLogger(lambda: make_logger(config.logger, place), Redactor(order.settings))
    watch(order, logger, lambda wait_s: next(told))


def _trees(folder: Path, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()  # as a tree's file can hold it
    nodes = [
        Node(id=0, parent=None, kind="prompt", model=None, text=""),
        Node(id=1, parent=0, kind="thinking", model="m", text=text, visits=2, value=1.0, tokens=7),
        Node(id=2, parent=1, kind="answer", model="m", text="4", tokens=2, verdict="correct"),
    ]
    write_trees(
        folder / "trees.jsonl",
        [
            Tree(
                id=f"problem-{i}",
                task="arithmetic",
                problem=f"{text} {i}",
                gold="4",
                pattern="a",
                models={"main": "tiny"},
                seed=0,
                status="solved",
                usage={"prompt_tokens": 9, "completion_tokens": 9, "requests": 3},
                nodes=nodes,
            )
            for i in range(20)
        ],
    )


def _dataset(folder: Path, text: str) -> None:
    (folder / "stats.json").write_text(json.dumps({"rows": 5, "tokens": {"sft": {"mean": 9.5}}}))
    (folder / "data.parquet").write_bytes(b"PAR1")


def _student(folder: Path, text: str) -> None:
    lines = [f"{i},{1 / i},{0.5 if i % 2 else ''}" for i in range(1, STEPS + 1)]
    (folder / "metrics.csv").write_text("\n".join(["step,loss,validation/loss", *lines]) + "\n")
    last = {"steps": STEPS, "last/loss": 1 / STEPS, "last/margin_length_correlation": -0.25}
    (folder / "metrics.json").write_text(json.dumps(last))
    pairs = [f"{i},1,{(i - 9.5) / 10},{i - 10},{50 + i},60,0.1,0.2" for i in range(20)]
    (folder / "pairs.csv").write_text("\n".join([",".join(COLUMNS), *pairs]) + "\n")
    (folder / "model.safetensors").write_bytes(b"weights" * 100)


def _scores(folder: Path, text: str) -> None:
    samples = [
        {
            "task": "arithmetic",
            "id": f"problem-{i // 2}",
            "turn": 1,
            "try": i % 2,
            "verdict": VERDICTS[i % 4],
            "error_classes": [PRIMARY[i % 3]],
            "prompt": f"{text} {i}?",
            "response": f"{text} {i}",
            "answer": "4",
            "gold": "4",
            "tokens": 5 + i // 2 % 8,
            "spent": (5 + i // 2 % 8) * (1 + i % 2),
            "finish": "stop",
        }
        for i in range(200)
    ]
    figures = summarise(
        samples, confidence=0.95, test_at=[1, 2], majority=False, resamples=10, seed=0
    )
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
    (folder / "results.json").write_text(
        json.dumps({"schema": 2, "student": "tiny", "seed": 0, "tasks": {"arithmetic": figures}})
    )


CONTENTS = {
    "trees": _trees,
    "dataset": _dataset,
    "student": _student,
    "scores": _scores,
    "reference": lambda folder, text: None,
}


def main(outputs: str, what: str, *overrides: str) -> None:
    config = config_of(Path(outputs), *overrides)
    scores = scores_of(config)
    with logged(config, scores):
        if what == "finish":
            finish_all(config, text=sys.stdin.read())
            return
        finish_all(config, until="student")
        train(scores.inputs["student"], config.outputs, 2)
        if what == "fail":
            raise SystemError(sys.stdin.read())
        print("in training", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
