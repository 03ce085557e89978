"""The figures of a training while it goes on: a line a step, for whoever follows it."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"  # in the student's folder, until metrics.csv holds all steps


class LiveLog:
    """Writes the lines; in a run that goes on from a checkpoint, those of its steps first."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def begin(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the file anew, with the steps that have been taken."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = (_line(step, figures) for step, figures in enumerate(history, 1))
        self.path.write_text("".join(lines), encoding="utf-8")

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(step, figures))

    def end(self) -> None:
        self.path.unlink(missing_ok=True)


class Following:
    """The lines of a training that goes on, each told once; a new attempt starts the file anew."""

    def __init__(self, folder: Path) -> None:
        self.path, self.offset = folder / FILE, 0

    def new(self) -> list[tuple[int, dict[str, Any]]]:
        """(step, figures) of the lines that were added; a line that is half written waits."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self.offset:
                    self.offset = 0
                file.seek(self.offset)
                read = file.read()
        except OSError:
            return []
        whole = read[: read.rfind(b"\n") + 1]
        self.offset += len(whole)
        found = []
        for line in whole.splitlines():
            with suppress(ValueError):  # half of one, of a file that was begun anew meanwhile
                told = json.loads(line)
                found.append((int(told.pop("step")), told))
        return found


def _line(step: int, figures: Mapping[str, float]) -> str:
    return json.dumps({"step": step, **figures}) + "\n"
