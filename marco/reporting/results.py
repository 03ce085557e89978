"""Results as they lie on disk: one scores folder is one student, graded on its tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from marco.errors import UserError
from marco.evaluation.statistics import Kind
from marco.manifest import MANIFEST, read_manifest

FILE = "results.json"
# What is told otherwise, or where and how a row runs.
NO_SETTINGS = {"seed", "outputs", "table", "engine", "trees"}
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class TaskScores(BaseModel):
    """Figures of one task over `n` problems: shares in 0..1 with their intervals at `confidence`.

    `intervals` says of which kind that of accuracy is, `no_answer_kind` the other's, and `counted`
    whether each try counts or what most tries at a problem say. `metric` says what accuracy is: the
    share of right samples, or the benchmark's `official` mean of several (`multi_if zh`, say).
    Validation error if the share of right samples and the no-answer ratio together pass 1: no
    answer is not a wrong answer, and not a right one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    metric: Literal["accuracy", "official"] = "accuracy"
    n: PositiveInt
    intervals: Kind = "wilson"
    counted: Literal["tries", "votes"] = "tries"
    confidence: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    accuracy: Share
    accuracy_interval: tuple[Share, Share]
    no_answer: Share
    no_answer_interval: tuple[Share, Share]
    no_answer_kind: Kind | None = None  # None: as `intervals`, in files of before it was told
    tokens_mean: FiniteFloat | None = None
    truncated: Share | None = None
    max_tokens: PositiveInt | None = None
    seconds: FiniteFloat | None = None

    @model_validator(mode="after")
    def _shares_fit(self) -> "TaskScores":
        if self.metric == "accuracy" and self.accuracy + self.no_answer > 1 + 1e-9:
            raise ValueError("accuracy + no_answer is more than 1")
        return self


class _ResultsFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1, 2] = Field(alias="schema")
    student: str
    row: str | None = None
    title: str | None = None
    seed: int
    tasks: Annotated[dict[str, TaskScores], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scored student: `row` is its recipe, or the student's name where no recipe made it."""

    folder: Path
    row: str
    title: str
    seed: int
    student: str
    tasks: dict[str, TaskScores]
    settings: dict[str, Any] = field(default_factory=dict)
    key: str | None = None


def collect(folders: Sequence[Path], *, rows: Sequence[str] | None = None) -> list[Result]:
    """The results of the scores folders, in their order.

    `rows` names the row of each: a table's own names, else those that its scores tell.

    Where a row was scored twice under other settings (a sweep), each becomes a row of its own,
    named by what differs, at least the key of its stage. UserError for a file that is missing or
    does not hold the contract, and where two folders score the same (row, seed) on the same task
    and nothing tells them apart: which one counts is for the person to say.
    """
    if rows is None:
        results = _told_apart([_read(Path(folder)) for folder in dict.fromkeys(folders)])
    else:
        results = [replace(_read(f), row=row) for f, row in zip(folders, rows, strict=True)]
    taken: dict[tuple[str, int, str], Path] = {}
    for result in results:
        for task in result.tasks:
            key = (result.row, result.seed, task)
            if key in taken:
                raise UserError(
                    f"row {result.row!r}, seed {result.seed}, task {task!r} is scored twice: in "
                    f"{taken[key]} and {result.folder}; name only one of them"
                )
            taken[key] = result.folder
    return results


def _told_apart(results: Sequence[Result]) -> list[Result]:
    """The results, with the settings in the name of a row that was scored under several."""
    by_row: dict[str, list[Result]] = {}
    for result in results:
        by_row.setdefault(result.row, []).append(result)
    named = {}
    for row in by_row.values():
        scored = [(result.seed, task) for result in row for task in result.tasks]
        if len(set(scored)) == len(scored):
            continue
        names = {name for result in row for name in result.settings}
        differing = sorted(n for n in names if len({repr(r.settings.get(n)) for r in row}) > 1)
        for result in row:
            told = [f"{name}={result.settings.get(name)}" for name in differing]
            alike = [r for r in row if r.seed == result.seed and r.settings == result.settings]
            if len({r.key for r in alike}) > 1:  # other trees, or another revision of the code
                told.append(f"key {str(result.key)[:8]}")
            named[result.folder] = f" ({', '.join(told)})" if told else ""
    return [
        replace(r, row=r.row + named.get(r.folder, ""), title=r.title + named.get(r.folder, ""))
        for r in results
    ]


def _of_stage(folder: Path) -> dict[str, Any]:
    """The `key` of a scores stage and its `settings` by dotted key; {} where none are told."""
    if not (folder / MANIFEST).is_file():
        return {}
    manifest = read_manifest(folder)
    flat = _flat(manifest["labels"].get("settings", {}))
    settings = {name: value for name, value in flat if name.split(".")[0] not in NO_SETTINGS}
    return {"key": manifest.get("key"), "settings": settings}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def student_behind(scores: Path) -> Path | None:
    """The folder of the student that was scored, where the manifest of the scores tells one."""
    if not (scores / MANIFEST).is_file():
        return None
    student = read_manifest(scores)["inputs"].get("student")
    return Path(student["path"]) if student else None


def find_scores(paths: Sequence[Path]) -> list[Path]:
    """The scores folders among `paths` and below them, sorted below each; UserError if none."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(
                f"{path} is not a folder: expected a scores folder, or one that holds some"
            )
        below = sorted(file.parent for file in path.rglob(FILE))
        if not below:
            raise UserError(f"no {FILE} in {path} or below it: evaluate a student first")
        found += below
    return list(dict.fromkeys(found))


def _read(folder: Path) -> Result:
    path = folder / FILE
    try:
        file = _ResultsFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{path} is no results file: {where}: {first['msg']}{more}") from error
    row = file.row or file.student
    return Result(
        folder=folder,
        row=row,
        title=file.title or row,
        seed=file.seed,
        student=file.student,
        tasks=file.tasks,
        **_of_stage(folder),
    )
