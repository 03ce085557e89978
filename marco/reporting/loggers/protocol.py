"""What every logger does: opens a run, takes its figures and samples, and closes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

STEP = "trainer/global_step"  # the x-axis of what is logged at a step of training


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """A run before it is opened: the same `id` again goes on with the same run.

    `group` is the sweep, `job_type` the kind of stage; `folder` takes the run's files.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a stage made, as others refer to it: `name` and `kind`, told apart by its `key`.

    `files` are small texts by name, `data` files of the stage by name, which may be large.
    """

    name: str
    kind: str
    key: str
    metadata: Mapping[str, Any]
    files: Mapping[str, str]
    data: Mapping[str, Path] = field(default_factory=dict)

    @property
    def reference(self) -> dict[str, str]:
        return {"kind": self.kind, "name": self.name, "key": self.key}


class Run(Protocol):
    """An open run; `last_step` is the last step on the axis STEP that it holds already, or 0."""

    last_step: int

    def log(self, metrics: Mapping[str, float], *, step: int, axis: str = STEP) -> None:
        """Add a point to the curve of each metric, over the axis of that name."""
        ...

    def summary(self, figures: Mapping[str, float | str]) -> None:
        """Set the run's final figures."""
        ...

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show graded samples: rows of the same columns."""
        ...

    def pages(self, pages: Mapping[str, str]) -> None:
        """Show HTML documents, by name."""
        ...

    def lineage(self, output: Artifact, inputs: Sequence[Artifact]) -> None:
        """Tell what the run's stage made, and from what."""
        ...

    def close(self, *, failed: bool) -> None:
        """End the run, as failed or as finished."""
        ...


class Logger(Protocol):
    """Where runs are opened; several may be open at once."""

    def start(self, run: RunInfo) -> Run: ...
