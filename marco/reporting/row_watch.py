"""The process that logs a row; `marco.reporting.row_log` starts it, and tells it the row's end.

Each stage has a run of its own, named by its key: it opens when the stage begins, follows it, and
is closed with it; one that is finished is never logged again. The row's own run is that of its
scores, and is open from the row's beginning.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from marco.disk import replace_text
from marco.manifest import MANIFEST, hidden
from marco.reporting import stage_contents as contents
from marco.reporting.allowlist import Redactor, allowed
from marco.reporting.config import AnyLogger, LoggerConfig
from marco.reporting.loggers import make_logger
from marco.reporting.loggers.guarded import GuardedLogger, GuardedRun
from marco.reporting.loggers.protocol import Artifact, RunInfo
from marco.reporting.row_log import MARKER, LoggedStage, Order, is_logged, place_of, run_id
from marco.training.live import Following

KILLED = "the row's process was killed"


class StageRun:
    """The run of one stage, from its beginning or from what is finished.

    That of a row also shows the training and the trees which the row stands on.
    """

    def __init__(self, stage: LoggedStage, order: Order, logger: GuardedLogger) -> None:
        self.stage, self.order, self.logger = stage, order, logger
        self.is_row = stage is order.stages[-1]
        self.id, place = run_id(order, stage), place_of(order)
        self.folder = place / f"{stage.kind}-{logger.redact(stage.slug)}-{self.id[:8]}"
        self.lock = FileLock(place / f".{self.folder.name}.lock")
        self.student, self.trees = self._shown("student"), self._shown("trees")
        self.following = Following(hidden(self.student, "part")) if self.student else None
        self.run: GuardedRun | None = None
        self.is_done = self.is_tried = False

    def _shown(self, kind: str) -> Path | None:
        """The folder of a kind that the run shows: its own, or the last that a row stands on."""
        shown = self.order.stages if self.is_row else [self.stage]
        folders = [Path(stage.folder) for stage in shown if stage.kind == kind]
        return folders[-1] if folders else None

    def look(self, *, is_over: bool = False) -> None:
        """Log what the stage has come to since the last look.

        A run that could not be opened is tried once more when the row `is_over`.
        """
        if self.is_done or (self.is_tried and self.run is None and not is_over):
            return
        finished = (Path(self.stage.folder) / MANIFEST).is_file()
        begun = self.is_row or hidden(Path(self.stage.folder), "part").is_dir()
        if self.run is None and (finished or (begun and not is_over)):
            self._open()
        run = self.run
        if run is not None:
            self._follow(run)
            if finished:
                run.guard("read the stage", lambda: self._log_contents(run))
                self.close(failure="")

    def close(self, *, failure: str) -> None:
        """Close the run, if it is open; its marker says that it need not be logged again."""
        if self.run is None:
            return
        # Without a failure too: a run that goes on may hold one of before.
        self.run.summary({"error": failure})
        self.run.close(failed=bool(failure))
        if not self.run.is_broken:
            state = "failed" if failure else "finished"
            told = {"id": self.id, "key": self.stage.key, "state": state}
            replace_text(self.folder / MARKER, json.dumps(told) + "\n")
        self.run, self.is_done = None, True
        self.lock.release()

    def _open(self) -> None:
        """Open the run, unless it was logged before, or another row's process logs it now."""
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            return
        if is_logged(self.folder):
            self.is_done = True
        else:
            self.run, self.is_tried = self.logger.start(self._info()), True
        if self.run is None:
            self.lock.release()

    def _info(self) -> RunInfo:
        """A run is named by its row, or by its stage where rows share it."""
        stage, order = self.stage, self.order
        told = {"stage": stage.kind, "key": stage.key, "table": order.table}
        tags = [order.table, order.student]
        if self.is_row:
            settings, name = order.settings, f"{order.row}-seed{order.seed}"
            told |= {"row": order.row, "title": order.title}
            tags.insert(1, order.row)
        else:
            settings, name = stage.config, stage.slug
            tags += [stage.title] if stage.title else []
        return RunInfo(
            id=self.id,
            name=name,
            group=order.group,
            job_type=stage.kind,
            tags=tuple(dict.fromkeys(tags)),
            config=allowed(settings, sections=order.logger["sections"]) | told,
            folder=self.folder,
        )

    def _follow(self, run: GuardedRun) -> None:
        """Log what the run does not hold yet of its training, and its trees once they are there."""
        if self.following is not None:
            following = self.following
            self._log_training(run, lambda: contents.new_training(following))
        if self.student is not None and (self.student / MANIFEST).is_file():
            student, self.student, self.following = self.student, None, None
            self._log_training(run, lambda: contents.finished_training(student))
        if self.trees is not None and (self.trees / MANIFEST).is_file():
            trees, self.trees = self.trees, None
            run.guard("read the trees", lambda: self._log_trees(run, trees))

    def _log_training(self, run: GuardedRun, read: Callable[[], Iterable[contents.Line]]) -> None:
        for step, metrics in run.guard("read the training", lambda: list(read())) or []:
            if step > run.last_step:
                run.log(metrics, step=step)
                run.last_step = step

    def _log_trees(self, run: GuardedRun, folder: Path) -> None:
        run.pages(contents.pages(folder, count=self.order.logger["trees"], redact=run.redact))
        run.summary(contents.figures("trees", folder))

    def _log_contents(self, run: GuardedRun) -> None:
        """Log what a finished stage holds."""
        folder, kind, logger = Path(self.stage.folder), self.stage.kind, self.order.logger
        for axis, place, metrics in contents.curves(kind, folder):
            run.log(metrics, step=place, axis=axis)
        run.samples(contents.samples(folder, count=logger["samples"]))
        run.summary(contents.figures(kind, folder))
        if logger.get("artifacts") != "none":
            made = {stage.key: stage for stage in self.order.stages}
            inputs = [made[key] for key in self.stage.inputs.values()]
            run.lineage(self._artifact(self.stage), [self._artifact(one) for one in inputs])

    def _artifact(self, stage: LoggedStage) -> Artifact:
        return contents.artifact(
            stage.slug,
            Path(stage.folder),
            inputs=stage.inputs,
            data=self.order.logger.get("artifacts") == "files",
        )


def watch(order: Order, logger: GuardedLogger, ending: Callable[[float], str | None]) -> None:
    """Log a row until `ending` tells that it is over: with what failed, or an empty text.

    `ending` waits so many seconds for that, and returns None if the row goes on.
    """
    runs = [StageRun(stage, order, logger) for stage in order.stages]
    failure = None
    while failure is None:
        for run in runs:
            run.look()
        failure = ending(order.logger["every_s"])
    for run in runs:
        run.look()
        run.close(failure=failure or "it did not finish")
    for run in runs:
        run.look(is_over=True)


class Row:
    """The row's process, as far as it tells something: its end, in a line through a pipe."""

    def __init__(self, pipe: int) -> None:
        self.parent, self.pipe, self.read = os.getppid(), pipe, b""

    def ending(self, wait_s: float) -> str | None:
        """How it has ended, if it has within so many seconds; KILLED once it is gone."""
        while b"\n" not in self.read:
            ready, _, _ = select.select([self.pipe], [], [], wait_s)
            if not ready:  # a process that was forked from it may hold the pipe open
                return None if os.getppid() == self.parent else KILLED
            more = os.read(self.pipe, 1 << 16)
            if not more:
                return KILLED
            self.read += more
        return self.read.decode("utf-8", "replace").rstrip("\n")


def main(pipe: int) -> None:
    """Log the row that standard input tells of, until the pipe tells how it has ended."""
    for name in (signal.SIGINT, signal.SIGTERM):  # the row is told, and tells
        signal.signal(name, signal.SIG_IGN)
    row = Row(pipe)
    order = Order.read(sys.stdin.read())
    config: AnyLogger = TypeAdapter[Any](LoggerConfig).validate_python(order.logger)
    place = Path(order.outputs) / config.name
    logger = GuardedLogger(lambda: make_logger(config, place), Redactor(order.settings))
    watch(order, logger, row.ending)


if __name__ == "__main__":
    main(int(sys.argv[1]))
