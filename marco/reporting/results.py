"""Results as they lie on disk: one scores folder is one student, graded on its tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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

FILE = "results.json"
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class TaskScores(BaseModel):
    """Figures of one task: shares in 0..1 of all `n` samples, Wilson's intervals at `confidence`.

    Validation error if accuracy and no-answer ratio together pass 1: no answer is not a wrong
    answer, and not a right one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    n: PositiveInt
    confidence: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    accuracy: Share
    accuracy_interval: tuple[Share, Share]
    no_answer: Share
    no_answer_interval: tuple[Share, Share]
    tokens_mean: FiniteFloat | None = None
    truncated: Share | None = None
    seconds: FiniteFloat | None = None

    @model_validator(mode="after")
    def _shares_fit(self) -> "TaskScores":
        if self.accuracy + self.no_answer > 1 + 1e-9:
            raise ValueError("accuracy + no_answer is more than 1")
        return self


class _ResultsFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = Field(alias="schema")
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


def collect(folders: Sequence[Path]) -> list[Result]:
    """The results of the scores folders, in their order.

    UserError for a file that is missing or does not hold the contract, and where two folders score
    the same (row, seed) on the same task: which one counts is for the person to say.
    """
    results = [_read(Path(folder)) for folder in dict.fromkeys(folders)]
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
    )
