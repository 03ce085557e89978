"""The log of a row: a process beside the row reads what its stages write, and tells the logger.

So a logger takes nothing from the row: no thread of its process, no wait but at the end, and no
failure. `marco.reporting.row_watch` is that process.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from marco.manifest import CONFIG, MANIFEST, read_manifest
from marco.reporting.config import AnyLogger, NoLoggerConfig, WandbConfig
from marco.stages import Stage, whole

if TYPE_CHECKING:
    from marco.config import Config

LONGEST = 4000  # bytes of an error that are logged
WATCH = ("-m", "marco.reporting.row_watch")
LOGGED = ("trees", "dataset", "student", "scores")  # kinds of stages that have a run
ALONE = "rows"  # the group of what is in no table
MARKER = "logged.json"  # in a run's folder, once it is closed


@dataclass(frozen=True, kw_only=True)
class LoggedStage:
    """A stage of a row, made or to be made; `inputs` are the keys of the logged ones it stands on.

    `title` is that of a student.
    """

    kind: str
    slug: str
    key: str
    folder: str
    inputs: Mapping[str, str]
    config: Mapping[str, Any]
    title: str | None


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the watching process is told: the row with its whole config, and its stages in order.

    The last of them are the row's scores. `group` is the sweep, with the digest of what it sets.
    """

    logger: Mapping[str, Any]
    outputs: str
    group: str
    table: str
    row: str
    title: str
    seed: int
    student: str
    settings: Mapping[str, Any]
    stages: list[LoggedStage]

    @classmethod
    def read(cls, text: str) -> "Order":
        values = json.loads(text)
        return cls(**values | {"stages": [LoggedStage(**stage) for stage in values["stages"]]})


@contextmanager
def logged(config: "Config", scores: Stage, *, group: str = ALONE) -> Iterator[None]:
    """Log a row while its stages are made within: `scores` is its last, the others are its inputs.

    `group` is the name of the sweep's table folder. At the end at most `logger.finish_s` seconds
    are waited for the log. What could not be logged is logged when the row is asked for again.
    """
    order = None if _is_off(config.logger) else order_of(config, scores, group=group)
    if order is None or _row_is_logged(order):
        yield
        return
    try:
        watcher = _Watcher(order)
    except OSError as error:
        print(f"logger {config.logger.name} did not start: {error}", flush=True)
        yield
        return
    try:
        yield
    except Exception as error:
        watcher.end(whole(error) or type(error).__name__)
        raise
    except BaseException as error:  # told to stop: the log ends by itself
        watcher.tell(type(error).__name__)
        raise
    else:
        watcher.end("")


def order_of(config: "Config", scores: Stage, *, group: str = ALONE) -> Order:
    """What is to be logged of a row."""
    return Order(
        logger=config.logger.model_dump(mode="json"),
        outputs=str(config.outputs),
        group=group,
        table=config.table.name if config.table else ALONE,
        row=scores.labels["row"],
        title=scores.labels["title"],
        seed=config.seed,
        student=config.student.name,
        settings=config.model_dump(mode="json"),
        stages=list(_stages(scores, config.outputs)),
    )


def run_id(order: Order, stage: LoggedStage) -> str:
    """The id of a stage's run: 16 hexadecimal digits, the same whenever the stage is logged."""
    identity = [order.group, stage.kind, stage.key]
    if stage is order.stages[-1]:  # two rows may come to the same scores
        identity += [order.row, order.seed]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def place_of(order: Order) -> Path:
    """The folder that the folders of a group's runs lie in."""
    return Path(order.outputs) / order.logger["name"] / order.group


def is_logged(folder: Path) -> bool:
    """Whether the run of a folder was closed as finished, with all that it was to hold."""
    try:
        return json.loads((folder / MARKER).read_text("utf-8"))["state"] == "finished"
    except (OSError, ValueError):
        return False


def _row_is_logged(order: Order) -> bool:
    row = order.stages[-1]
    found = place_of(order).glob(f"{row.kind}-*-{run_id(order, row)[:8]}")
    return any(map(is_logged, found))


def _is_off(config: NoLoggerConfig | AnyLogger) -> bool:
    if isinstance(config, WandbConfig):
        return "disabled" in (config.mode, config.mode == "auto" and os.environ.get("WANDB_MODE"))
    return isinstance(config, NoLoggerConfig)


def _stages(stage: Stage, outputs: Path, seen: set[str] | None = None) -> Iterator[LoggedStage]:
    """The logged stages below one, and itself; each once, and after those it stands on."""
    seen = set() if seen is None else seen
    if stage.key in seen:
        return
    seen.add(stage.key)
    inputs: dict[str, str] = {}
    for name, value in stage.inputs.items():
        if isinstance(value, Stage):
            yield from _stages(value, outputs, seen)
            kind, key = value.kind, value.key
        elif (value / MANIFEST).is_file():
            yield from _found_stages(value, seen)
            manifest = read_manifest(value)
            kind, key = manifest["stage"], manifest["key"]
        else:
            continue
        if kind in LOGGED:
            inputs[name] = key
    if stage.kind in LOGGED:
        yield LoggedStage(
            kind=stage.kind,
            slug=stage.slug,
            key=stage.key,
            folder=str(stage.folder(outputs)),
            inputs=inputs,
            config=stage.config,
            title=stage.labels.get("title"),
        )


def _found_stages(folder: Path, seen: set[str]) -> Iterator[LoggedStage]:
    """The same of a finished stage whose folder was given, by the manifests."""
    manifest = read_manifest(folder)
    if manifest["key"] in seen:
        return
    seen.add(manifest["key"])
    inputs: dict[str, str] = {}
    for name, told in manifest["inputs"].items():
        path = Path(told["path"])
        if (path / MANIFEST).is_file():
            yield from _found_stages(path, seen)
            if read_manifest(path)["stage"] in LOGGED:
                inputs[name] = told["key"]
    if manifest["stage"] in LOGGED:
        order = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        yield LoggedStage(
            kind=manifest["stage"],
            slug=folder.name.removesuffix(f"-{manifest['key'][:8]}"),
            key=manifest["key"],
            folder=str(folder),
            inputs=inputs,
            config=order["config"],
            title=manifest["labels"].get("title"),
        )


class _Watcher:
    """The process that logs a row; it sees the end of this one too, whatever ends it."""

    def __init__(self, order: Order) -> None:
        self.finish_s: float = order.logger["finish_s"]
        reading, self.writing = os.pipe()
        try:
            # A file without a name: a pipe would hold the row up until the other end reads.
            with TemporaryFile() as file:
                file.write(json.dumps(asdict(order)).encode())
                file.seek(0)
                self.process = subprocess.Popen(
                    [sys.executable, *WATCH, str(reading)],
                    stdin=file,
                    pass_fds=[reading],
                    env=_environment(order) | os.environ,
                    start_new_session=True,  # an interrupt at the terminal is the row's to tell
                )
        except OSError:
            os.close(self.writing)
            raise
        finally:
            os.close(reading)

    def tell(self, failure: str) -> None:
        """Tell how the row ended."""
        with suppress(OSError):  # it has ended before, and said why
            os.write(self.writing, " ".join(failure.split()).encode()[:LONGEST] + b"\n")
        os.close(self.writing)

    def end(self, failure: str) -> None:
        """Tell how the row ended, and wait until that is logged, but not for long."""
        self.tell(failure)
        try:
            self.process.wait(timeout=self.finish_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(
                f"the log of the row was not finished in {self.finish_s:g} s (logger.finish_s); "
                "the same command tries again, `wandb sync` sends what W&B has kept",
                flush=True,
            )


def _environment(order: Order) -> dict[str, str]:
    """What the loggers' libraries are told: to ask nobody, and to tell nobody but their server.

    What they keep lies below the outputs: a job may have no home folder. MLflow would try a server
    that is down for an hour.
    """
    kept = Path(order.outputs) / order.logger["name"]
    return {
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DATA_DIR": str(kept / ".data"),
        "WANDB_CACHE_DIR": str(kept / ".cache"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(order.logger["finish_s"] / 8))),
    }
