"""Runs as TensorBoard's event files."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.scalar.metadata import create_summary_metadata as scalar_metadata
from tensorboard.plugins.text.metadata import create_summary_metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from marco.reporting.loggers.csv_files import write_pages
from marco.reporting.loggers.protocol import STEP, Artifact, RunInfo

FLUSH_S = 5


class TensorboardRun:
    """Writes curves and final figures as scalars (the latter below `final/`), and texts as texts.

    Pages lie in files below `trees/`: TensorBoard shows no HTML.
    """

    def __init__(self, info: RunInfo) -> None:
        self.folder = info.folder
        self.last_step = _last_step(info.folder)
        self.writer = EventFileWriter(str(info.folder), flush_secs=FLUSH_S)
        facts = {"id": info.id, "group": info.group, "job_type": info.job_type}
        self._text("run", _block(facts | {"tags": list(info.tags), "config": dict(info.config)}))

    def log(self, metrics: Mapping[str, float], *, step: int, axis: str = STEP) -> None:
        for name, value in metrics.items():
            self._add(name, np.float32(value), scalar_metadata("", ""), step)
        if axis == STEP:
            self._add(STEP, np.float32(step), scalar_metadata("", ""), step)

    def summary(self, figures: Mapping[str, float | str]) -> None:
        for name, value in figures.items():
            if isinstance(value, str):
                self._text(f"final/{name}", value)
            else:
                self._add(f"final/{name}", np.float32(value), scalar_metadata("", ""), 0)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            cells = [[_cell(value) for value in row.values()] for row in rows]
            self._text("samples", [list(rows[0]), *cells])

    def pages(self, pages: Mapping[str, str]) -> None:
        write_pages(self.folder, pages)

    def lineage(self, output: Artifact, inputs: Sequence[Artifact]) -> None:
        told = {"made": output.reference, "from": [one.reference for one in inputs]}
        self._text("lineage", _block(told))

    def close(self, *, failed: bool) -> None:
        self._text("state", "failed" if failed else "finished")
        self.writer.close()

    def _text(self, tag: str, text: str | list[list[str]]) -> None:
        # Of a list of lists TensorBoard makes a table; it lets no HTML of a text through.
        self._add(tag, np.array(text, dtype=object), text_metadata("", ""), 0)

    def _add(self, tag: str, value: Any, metadata: Any, step: int) -> None:
        event: Any = event_pb2.Event(wall_time=time.time(), step=step)  # pyright: ignore[reportAttributeAccessIssue]
        event.summary.value.add(tag=tag, tensor=make_tensor_proto(value), metadata=metadata)
        self.writer.add_event(event)


class TensorboardLogger:
    """The logger `tensorboard`."""

    def start(self, run: RunInfo) -> TensorboardRun:
        return TensorboardRun(run)


def _last_step(folder: Path) -> int:
    """The last step of training that earlier attempts have written."""
    if not folder.is_dir():
        return 0
    events = EventAccumulator(str(folder), size_guidance={"tensors": 1})
    events.Reload()
    return events.Tensors(STEP)[-1].step if STEP in events.Tags()["tensors"] else 0


def _block(value: Any) -> str:
    """A value as a block of code: TensorBoard reads texts as Markdown."""
    lines = json.dumps(value, indent=1, ensure_ascii=False).splitlines()
    return "\n".join(f"    {line}" for line in lines)


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
