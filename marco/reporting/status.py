"""What has become of the stages and tables below a folder of outputs.

python -m marco.reporting status [outputs] [--json FILE]
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from marco.errors import UserError
from marco.manifest import MANIFEST, hidden, read_manifest
from marco.progress import duration
from marco.sweep import SPEC, records, row_names

DESCRIPTION = "List stages: running, finished, failed, broken off; and tables, with what they cost."
STATES = ("running", "failed", "broken off", "finished")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside `--json`."""
    parser.add_argument(
        "outputs",
        nargs="?",
        type=Path,
        default=Path("outputs"),
        metavar="OUTPUTS",
        help="the folder that stages lie in (%(default)s)",
    )


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """The stages and tables, as JSON; times in seconds. UserError where there are none."""
    outputs: Path = options.outputs
    if not outputs.is_dir():
        raise UserError(f"{outputs} is not a folder: name the one that stages lie in")
    stages = sorted(_stages(outputs), key=lambda s: (STATES.index(s["state"]), s["kind"]))
    tables = [_table(path.parent) for path in sorted((outputs / "table").glob(f"*/{SPEC}"))]
    if not stages and not tables:
        raise UserError(f"{outputs} holds no stage")
    return {"stages": stages, "tables": tables}


def text(told: dict[str, Any]) -> str:
    """A line a stage, what is under way first, and a line a table."""
    lines = [f"{s['state']:10}  {s['kind']:9}  {s['name']}  {_told(s)}" for s in told["stages"]]
    for table in told["tables"]:
        rows = f"{table['finished']} of {table['rows']} rows finished"
        for state in ("stale", "failed"):
            rows += f", {table[state]} {state}" if table[state] else ""
        lines += ["", f"table {table['name']}: {rows}"]
        if table["seconds_apart"]:
            share = table["seconds"] / table["seconds_apart"]
            lines.append(
                f"  its stages took {duration(table['seconds'])}; its rows one by one would take "
                f"{duration(table['seconds_apart'])} ({share:.2f} of it)"
            )
    return "\n".join(lines) + "\n"


def _stages(outputs: Path) -> Iterator[dict[str, Any]]:
    for kind in sorted(path for path in outputs.iterdir() if path.is_dir()):
        hid = [path for path in kind.glob(".*") if path.suffix in (".part", ".failed")]
        unfinished = {kind / path.stem.removeprefix(".") for path in hid}
        for folder in sorted(unfinished | {path.parent for path in kind.glob(f"*/{MANIFEST}")}):
            yield {"kind": kind.name, "name": folder.name} | _state(folder)


def _state(folder: Path) -> dict[str, Any]:
    if folder.is_dir():
        return {"state": "finished", "seconds": read_manifest(folder)["seconds"]}
    if (held := _holder(folder)) is not None:
        holder, since = held
        told: dict[str, Any] = {"state": "running", "by": holder}
        told["seconds"] = round(time.time() - since, 1)
        return told | _json(hidden(folder, "progress"))
    if failed := _json(hidden(folder, "failed")):
        return {"state": "failed"} | failed
    return {"state": "broken off"} | _json(hidden(folder, "progress"))


def _holder(folder: Path) -> tuple[str, float] | None:
    """Who makes a stage, and since when; None where nobody does.

    A lock that this user may not ask counts as held where a process has told that it is at work.
    """
    lock = FileLock(hidden(folder, "lock"))
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError):
        pid = hidden(folder, "pid")
        with suppress(FileNotFoundError):  # it has just ended
            return pid.read_text(), pid.stat().st_mtime
        return None
    lock.release()
    return None


def _told(stage: dict[str, Any]) -> str:
    parts = []
    if "by" in stage:
        parts.append(stage["by"])
    if "done" in stage:
        parts.append(f"{stage['done']}/{stage['total']} {stage['unit']}")
    if "ending" in stage:
        parts.append(stage["ending"])
    if "seconds" in stage:
        parts.append(duration(stage["seconds"]))
    if stage["state"] == "running" and stage.get("left_s") is not None:
        parts.append(f"{duration(stage['left_s'])} left")
    why = f": {stage['told']}" if stage.get("told") else ""
    return ", ".join(parts) + why


def _table(folder: Path) -> dict[str, Any]:
    """How far a table is, and what its stages cost, once and row by row."""
    kept = records(folder)
    scores = [Path(record.scores) for record in kept if record.scores]
    of_rows = [_lineage(path) for path in scores if (path / MANIFEST).is_file()]
    together = {key: seconds for row in of_rows for key, seconds in row.items()}
    done = {record.row for record in kept if record.scores and not record.is_stale}
    stale = {record.row for record in kept if record.scores} - done
    return {
        "name": folder.name,
        "rows": len(row_names(folder)),
        "finished": len(done),
        "stale": len(stale),
        "failed": len({record.row for record in kept if record.failed}),
        "seconds": round(sum(together.values()), 1),
        "seconds_apart": round(sum(sum(row.values()) for row in of_rows), 1),
    }


def _lineage(folder: Path) -> dict[str, float]:
    """The seconds of a stage, and of all that it stands on, by key."""
    manifest = read_manifest(folder)
    seconds = {manifest["key"]: manifest["seconds"]}
    for entry in manifest["inputs"].values():
        if (Path(entry["path"]) / MANIFEST).is_file():
            seconds |= _lineage(Path(entry["path"]))
    return seconds


def _json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is not there, or half written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
