"""Runs as plain files, for whoever plots by himself."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marco.disk import replace_text
from marco.reporting.loggers.protocol import STEP, Artifact, RunInfo

COLUMNS = ("axis", "step", "metric", "value")


class CsvRun:
    """Writes `metrics.csv` (one line per point), `run.json`, `summary.json`, `samples.jsonl` and
    pages below `trees/`.
    """

    def __init__(self, info: RunInfo) -> None:
        self.folder = info.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.facts: dict[str, Any] = {
            "id": info.id,
            "name": info.name,
            "group": info.group,
            "job_type": info.job_type,
            "tags": list(info.tags),
            "state": "running",
            "config": dict(info.config),
        }
        self.figures: dict[str, float | str] = {}
        self._tell()
        self.path = self.folder / "metrics.csv"
        self.last_step = _mended(self.path)
        if not self.path.exists():
            self._add([COLUMNS])

    def log(self, metrics: Mapping[str, float], *, step: int, axis: str = STEP) -> None:
        self._add((axis, step, name, value) for name, value in metrics.items())

    def summary(self, figures: Mapping[str, float | str]) -> None:
        self.figures |= figures
        _write(self.folder / "summary.json", self.figures)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        # Not as CSV: a spreadsheet would take a model's text that begins with = for a formula.
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.folder / "samples.jsonl").write_text("".join(lines), encoding="utf-8")

    def pages(self, pages: Mapping[str, str]) -> None:
        write_pages(self.folder, pages)

    def lineage(self, output: Artifact, inputs: Sequence[Artifact]) -> None:
        self.facts["made"] = output.reference
        self.facts["from"] = [one.reference for one in inputs]

    def close(self, *, failed: bool) -> None:
        self.facts["state"] = "failed" if failed else "finished"
        self._tell()

    def _add(self, lines: Iterable[Sequence[Any]]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)

    def _tell(self) -> None:
        _write(self.folder / "run.json", self.facts)


class CsvLogger:
    """The logger `csv`."""

    def start(self, run: RunInfo) -> CsvRun:
        return CsvRun(run)


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    """Write HTML documents to `trees/`, numbered: their names may hold anything."""
    (folder / "trees").mkdir(exist_ok=True)
    for number, page in enumerate(pages.values()):
        (folder / "trees" / f"{number}.html").write_text(page, encoding="utf-8")


def _mended(path: Path) -> int:
    """The last step of training in a file, without the line that its writer was killed in."""
    if not path.is_file():
        return 0
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    lines = csv.DictReader(whole.splitlines())
    return max((int(line["step"]) for line in lines if line["axis"] == STEP), default=0)


def _write(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
