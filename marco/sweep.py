"""The rows of a table: each in a process of its own, how it ended on disk, and the table anew."""

import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import open_dict
from omegaconf.errors import OmegaConfBaseException

from marco import pipeline, processes
from marco.cli import Job, left_by_jobs
from marco.config import ROOT, Config, check
from marco.disk import replace_text
from marco.errors import UserError, near
from marco.experiment import make_row
from marco.identity import VOLATILE
from marco.manifest import MANIFEST, SCHEMA, where_now
from marco.stages import whole
from marco.termination import exit_on_sigterm

SPEC, ROWS = "sweep.json", "rows"  # what is kept in a table's folder beside the table
TABLE = "table.txt"  # in the folder of a job: where the table of its row lies
NEVER_SHARED = {"seed", "experiments", "retry", "outputs", "push_to_hub"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a row of one seed ended: `scores` is their folder, or `failed` says why there are none.

    `overrides` are the row's own, by which its config can be composed again; `key` is that of its
    scores, and tells whether the same overrides still ask for them; `configs` are those it came of,
    `files` those from outside that it was made from, in the `state` that they had. The row is
    compared with those of its `group`.
    """

    row: str
    seed: int
    overrides: tuple[str, ...]
    key: str
    configs: str
    files: tuple[str, ...] = ()
    state: str = ""
    group: str = ""
    scores: str | None = None
    failed: str | None = None

    @property
    def is_stale(self) -> bool:
        """Whether the config asks for something else by now; not known without its files."""
        if not all(map(os.path.exists, self.files)):
            return False
        is_new = self.configs != configs() or self.state != state_of(self.files)
        return is_new and self.key != current_key(self.overrides)


def run_row(config: Config, job: Job) -> Path:
    """The scores of a row; how it ends is recorded beside the table that it belongs to.

    A row of a multirun has a process of its own. One that has failed before is not tried again
    unless `retry=failed`, or its config has changed. UserError where it fails.
    """
    if config.table is None:
        return make_row(config)
    if config.row not in config.table.rows:
        told = f"{config.table.name} has no row {config.row!r}{near(config.row, config.table.rows)}"
        raise UserError(f"the table {told}")
    place = list(config.table.rows).index(config.row) + 1
    name = f"{config.row_title} (seed {config.seed})"
    print(f"row {place}/{len(config.table.rows)}: {name}", flush=True)
    stage = pipeline.scores(config, pipeline.student(config))
    files = tuple(sorted(map(str, stage.files())))
    record = Record(
        row=config.row,
        seed=config.seed,
        overrides=(*job.overrides, *_told_by_environment(config)),
        key=stage.key,
        configs=configs(),
        files=files,
        state=state_of(files),
        group=config.table.group,
    )
    called = folder_name(
        config.table.name,
        job.overrides,
        row=job.row,
        params=job.params,
        is_sweep=job.is_sweep,
    )
    folder = config.outputs / "table" / called
    before = _read(folder / ROWS / _file(record))
    replace_text(job.folder / TABLE, str(folder))
    if job.is_sweep and before and before.failed and before.key == stage.key and not config.retry:
        raise UserError(f"{name} failed before: {before.failed} (retry=failed tries it again)")
    try:
        make = _apart if job.is_sweep else make_row
        scores = make(config, group=folder.name)
    except UserError as error:
        _keep(folder, replace(record, failed=whole(error)), config)
        raise
    _keep(folder, replace(record, scores=str(scores)), config)
    return scores


def _told_by_environment(config: Config) -> list[str]:
    """As overrides what a config takes from variables (SKY_T1), which others do not set."""
    if config.data.published is None:
        return []
    return [f"data.published.file={json.dumps(config.data.published.file, ensure_ascii=False)}"]


def show_tables(run: Path) -> None:
    """Write and print each table that a job of the run has made a row of."""
    for folder in sorted({Path(path.read_text("utf-8")) for path in left_by_jobs(run, TABLE)}):
        if (folder / SPEC).is_file():
            print(f"\n{tabulate(folder)}\ntable: {folder}", flush=True)


def tabulate(folder: Path) -> str:
    """Write the table of a folder anew from the records in it, and return it as Markdown.

    Of a row's seeds those count whose config still asks for their scores; where there are none,
    the others do, and the row is said to be stale. Scores that were deleted are pending again.
    """
    from marco.reporting.table import RowSpec, write_table
    from marco.reporting.yields import tree_grid

    spec = _spec(folder)
    by_row: dict[str, list[Record]] = {row: [] for row in spec["rows"]}
    for record in records(folder):
        by_row[record.row].append(record)
    used, status = [], {}
    for row, own in by_row.items():
        current = [record for record in own if not record.is_stale]
        shown = current or [record for record in own if record.scores]
        used += [record for record in shown if record.scores]
        failed = [r for r in current if r.failed]
        if failed:
            seeds = ", ".join(str(r.seed) for r in failed)
            status[row] = f"failed (seed {seeds}): {_short(failed[-1].failed)}"
        elif shown and not current:
            status[row] = "stale: its config has changed"
    groups = {record.row: record.group for own in by_row.values() for record in own}
    behind = [(spec["rows"][record.row], Path(str(record.scores))) for record in used]
    grown = tree_grid(behind, confidence=spec["confidence"]) if spec["trees"] else None
    return write_table(
        name=spec["name"],
        rows=[RowSpec(row, title, groups.get(row, "")) for row, title in spec["rows"].items()],
        folders=[Path(str(record.scores)) for record in used],
        names=[record.row for record in used],
        out=folder,
        paper=spec["paper"],
        paper_column=spec["paper_column"],
        status=status,
        figures=spec["figures"],
        swept=spec["swept"],
        grids=[grown] if grown else [],
    )


def records(folder: Path) -> list[Record]:
    """How the rows in a table's folder ended, without those whose scores were deleted."""
    rows = row_names(folder)
    kept = [_read(path) for path in sorted((folder / ROWS).glob("*.json"))]
    return [r for r in kept if r and r.row in rows and (r.failed or _is_there(r))]


def row_names(folder: Path) -> list[str]:
    """The rows of the table in a folder, in order."""
    return list(_spec(folder)["rows"])


@cache
def configs() -> str:
    """A hash of all config files, and of what the code makes of them."""
    digest = hashlib.sha256(json.dumps([SCHEMA, pipeline.REVISIONS]).encode())
    for folder in ("conf", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.yaml")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def state_of(files: tuple[str, ...]) -> str:
    """A hash of the sizes and times of files, and of those in folders among them; "" of none."""
    found = [inner for path in map(Path, files) for inner in sorted([path, *path.rglob("*")])]
    states = [(str(path), path.stat()) for path in found if path.is_file()]
    told = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] if files else ""


@cache
def current_key(overrides: Sequence[str]) -> str | None:
    """The key of the scores that a row's overrides ask for now; None where they ask for none."""
    try:
        config = composed_config(overrides)
        return pipeline.scores(config, pipeline.student(config)).key
    except (UserError, HydraException, OmegaConfBaseException):
        return None


def composed_config(overrides: Sequence[str]) -> Config:
    """The config of a row, from its overrides, as a run of its own would have it."""
    running = HydraConfig.instance()
    before = running.cfg
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("train", overrides=list(overrides), return_hydra_config=True)
    choices: Any = composed.hydra.runtime.choices
    try:
        running.set_config(composed)  # a table's rows may be named by a group's choice
        with open_dict(composed):
            del composed["hydra"]
        return check(composed, choices)
    finally:
        running.cfg = before


def _apart(config: Config, *, group: str) -> Path:
    """Make a row in a process of its own; UserError with its last lines where it ends badly."""
    result, result_end = processes.context().Pipe(duplex=False)
    code, last_lines = processes.run_apart(_make, config, group, result_end)
    result_end.close()
    with suppress(EOFError):  # it ended before it could tell
        told = result.recv()
        if code == 0:
            return Path(told)
        raise UserError(told)
    raise UserError(f"the row's process ended by itself ({processes.ending(code)}): {last_lines}")


def _make(config: Config, group: str, result_end: Any) -> None:
    """A row's process: how it ends goes to the script."""
    processes.end_with_script()
    exit_on_sigterm()
    processes.is_forked = True
    try:
        result_end.send(str(make_row(config, group=group)))
    except UserError as error:
        result_end.send(whole(error))
        sys.exit(2)
    except Exception:  # a fault of ours: the other rows go on
        traceback.print_exc()
        sys.exit(1)


def folder_name(
    table: str,
    overrides: Iterable[str],
    *,
    row: str,
    params: Mapping[str, str],
    is_sweep: bool = True,
) -> str:
    """What a table's folder is called, and its group in W&B.

    Rows find each other by the overrides that they share: all but those that `row` is named by,
    and of those that the experiment itself gives (`params`) the keys that it sweeps, and fixed
    values that are as it says; a run that is no sweep goes without them. What changes how a stage
    runs, and not what it makes, makes no other table.
    """
    parser = OverridesParser.create()
    own = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
    fixed = {
        one.get_key_element(): one.get_value_element_as_str()
        for one in own
        if not one.is_sweep_override()
    }
    of_row = set(re.findall(r"\$\{(?:hydra:runtime\.choices\.)?([^{}]+?)(?:\.name)?\}", row))
    of_row |= NEVER_SHARED | (params.keys() - fixed.keys())
    names = {override: override.partition("=")[0].lstrip("+~") for override in overrides}
    shared = [
        override
        for override, name in names.items()
        if not (name in of_row or VOLATILE & set(re.split(r"[./@]", name)))
        and override != f"{name}={fixed.get(name)}"
    ]
    if not is_sweep:
        shared += [f"no {key}" for key in fixed.keys() - set(names.values())]
    shared.sort()
    digest = hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:8]
    return f"{table}-{digest}"


def _keep(folder: Path, record: Record, config: Config) -> None:
    """Keep a row's record, and what its table is, for whoever writes the table from it."""
    table = config.table
    assert table is not None
    spec = {
        "name": table.name,
        "rows": table.titles,
        "paper": table.paper,
        "paper_column": table.paper_column,
        "trees": table.trees,
        "figures": table.figures,
        "swept": table.swept,
        "confidence": config.confidence,
    }
    try:
        (folder / ROWS).mkdir(parents=True, exist_ok=True)
        replace_text(folder / SPEC, json.dumps(spec, indent=1, ensure_ascii=False) + "\n")
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
        replace_text(folder / ROWS / _file(record), text + "\n")
    except OSError as error:
        raise UserError(f"cannot write the table {folder}: {error.strerror or error}") from error


def _spec(folder: Path) -> dict[str, Any]:
    without_figures = {"figures": [], "swept": []}  # as tables of before they were listed
    try:
        spec = without_figures | json.loads((folder / SPEC).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is no table of a sweep: it holds no {SPEC}") from error
    if "rows" not in spec:
        raise UserError(f"{folder} is no table of a sweep: its {SPEC} lists no rows")
    return spec


def _read(path: Path) -> Record | None:
    """A record; None where there is none, or one of another version.

    Scores that were made since a row had failed, alone or by another's sweep, are the row's.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(values.get(name, ())) for name in ("overrides", "files")}
        record = Record(**values | lists)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    outputs = path.absolute().parents[3]  # outputs/table/<table>/rows/<row>.json
    if record.scores:
        return replace(record, scores=str(where_now(Path(record.scores), outputs=outputs)))
    made = (outputs / "scores").glob(f"*-{record.key[:8]}")
    scores = next((folder for folder in made if (folder / MANIFEST).is_file()), None)
    return replace(record, scores=str(scores), failed=None) if scores else record


def _is_there(record: Record) -> bool:
    return record.scores is not None and Path(record.scores).is_dir()


def _file(record: Record) -> str:
    name = record.row.replace("/", "_")
    return f"{name}-s{record.seed}.json"


def _short(text: str | None) -> str:
    """How it begins, and the last lines' end, which says why."""
    line = " ".join(str(text).split())
    return line if len(line) <= 200 else f"{line[:90]} ... {line[-105:]}"
