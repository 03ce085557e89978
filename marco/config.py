"""The config of a run: checked whole, before a model loads, every problem at once."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from marco.data.config import DataConfig, LengthConfig, PairsConfig
from marco.engines.registry import EngineConfig
from marco.errors import UserError
from marco.reporting.config import LoggerConfig
from marco.reporting.paper import load_paper
from marco.search.pattern import AnyPattern, Kinds, MixedPattern, Pattern
from marco.search.settings import SearchConfig
from marco.tasks.problem import Split
from marco.tasks.registry import TaskConfig
from marco.training.config import LossConfig, TrainerConfig

ROOT = Path(__file__).resolve().parents[1]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(Section):
    """A model that takes part in the search; `model` is a folder, a hub name, or `embedded`."""

    model: str
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)


class ModelsConfig(Section):
    """Which checkpoint writes which kind of node."""

    name: str
    checkpoints: dict[str, Checkpoint] = Field(min_length=1)
    roles: dict[str, str]


class LengthsConfig(Section):
    sft: LengthConfig
    dpo: LengthConfig


class StudentConfig(Section):
    """The model that is trained; `model` is a folder, a hub name, or `embedded`."""

    name: str
    model: str


class DecodingConfig(Section):
    """How a student is sampled in evaluation; temperature 0 is greedy."""

    name: str
    tensor_parallel: PositiveInt
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: PositiveInt


class RecipeConfig(Section):
    """A row: its title in tables, and the training that leads to it."""

    name: str
    title: str
    trains: list[Literal["sft", "preference"]]

    @model_validator(mode="after")
    def _sft_comes_first(self) -> Self:
        if self.trains not in ([], ["sft"], ["sft", "preference"], ["preference"]):
            raise ValueError("trains is [], [sft], [preference], or [sft, preference]")
        return self


class TrainersConfig(Section):
    """Settings shared by both kinds of training, and what is particular to each."""

    sft: dict[str, Any]
    preference: dict[str, Any]
    shared: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        own = {key: values.get(key) or {} for key in ("sft", "preference")}
        return own | {"shared": {k: v for k, v in values.items() if k not in own}}

    @model_validator(mode="after")
    def _both_are_whole(self) -> Self:
        for kind in ("sft", "preference"):
            self.of(kind)
        return self

    def of(self, kind: Literal["sft", "preference"]) -> TrainerConfig:
        return TrainerConfig(**{**self.shared, **getattr(self, kind)})


class TableConfig(Section):
    """An experiment's table: its rows in order, and the paper's numbers beside them."""

    name: str
    rows: list[str] = Field(min_length=1)
    paper: str | None
    paper_column: str


class Config(Section):
    """Everything that a run can be told; a script that does without a section leaves it null."""

    seed: NonNegativeInt
    search_seed: NonNegativeInt
    outputs: Path
    confidence: float = Field(gt=0, lt=1)
    task: TaskConfig
    tasks: list[str] = Field(min_length=1)
    split: Split
    models: ModelsConfig
    engine: EngineConfig
    kinds: Kinds
    pattern: AnyPattern
    search: SearchConfig
    data: DataConfig
    length: LengthsConfig
    pairs: PairsConfig
    loss: LossConfig
    sft_loss: LossConfig
    student: StudentConfig
    trainer: TrainersConfig
    logger: LoggerConfig
    decoding: DecodingConfig
    recipe: RecipeConfig
    trees: Path | None
    table: TableConfig | None

    @property
    def patterns(self) -> list[Pattern]:
        """The patterns that may be drawn: several for a mixed one."""
        if isinstance(self.pattern, MixedPattern):
            return list(self.pattern.options.values())
        return [self.pattern]

    @model_validator(mode="after")
    def _every_kind_is_known_and_written_by_someone(self) -> Self:
        used = [(p.name, kind) for p in self.patterns for kind in sorted(p.kinds | set(p.max_run))]
        names = self.models.checkpoints
        problems = [
            f"pattern {pattern}: unknown kind `{kind}`{near(kind, self.kinds)}"
            if kind not in self.kinds
            else f"models.roles: nobody writes `{kind}` (pattern {pattern})"
            for pattern, kind in used
            if kind not in self.kinds or kind not in self.models.roles
        ]
        problems += [
            f"models.roles.{kind}: no checkpoint `{name}`{near(name, names)}"
            for kind, name in self.models.roles.items()
            if name not in names
        ]
        if "preference" in self.recipe.trains and self.loss.preference is None:
            problems.append(f"recipe {self.recipe.name} needs pairs, but loss.preference is null")
        if self.table is not None:
            problems += _table_problems(self.table)
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _table_problems(table: TableConfig) -> list[str]:
    recipes = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))
    problems = [
        f"table.rows: there is no conf/recipe/{row}.yaml{near(row, recipes)}"
        for row in table.rows
        if row not in recipes
    ]
    if table.paper is not None:
        try:
            load_paper(table.paper, column=table.paper_column)
        except UserError as error:
            problems.append(f"table: {error}")
    return problems


def check(cfg: DictConfig, choices: Mapping[str, Any]) -> Config:
    """The config as checked values; UserError with one line per problem: file, key, what is wrong.

    `choices` are Hydra's group choices, by which a key is traced to its file.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"the config lacks {', '.join(missing)}: set each on the command line")
    try:
        values = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {str(error).splitlines()[0]}") from error
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines = [_told(e, values, choices) for e in error.errors(include_url=False)]
        raise UserError("the config has problems:\n  " + "\n  ".join(lines)) from None
    return config.model_copy(update={"outputs": Path(os.path.abspath(config.outputs))})


def near(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """`; did you mean x?`, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{found[0]}`?" if found else ""


def _told(error: Any, values: Any, choices: Mapping[str, Any]) -> str:
    path = [str(part) for part in error["loc"] if not str(part).startswith(("function-", "lax-"))]
    path = [part for part in path if part not in ("Pattern", "MixedPattern", "arithmetic", "gsm8k")]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key" + near(path[-1], _siblings(path))
    elif error["type"] == "missing":
        message = "missing"
    elif not isinstance(error.get("input"), Mapping):
        message += f", got {_short(error.get('input'))}"
    where = _file(path, choices)
    return (f"{where}: " if where else "") + (f"{'.'.join(path)}: " if path else "") + message


def _siblings(path: Sequence[str]) -> list[str]:
    model: Any = Config
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = getattr(annotation, "__args__", (annotation,))
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _file(path: Sequence[str], choices: Mapping[str, Any]) -> str:
    """The file of the deepest chosen group that a key lies in."""
    for depth in range(len(path), 0, -1):
        package = ".".join(path[:depth])
        for group, choice in choices.items():
            name, _, target = group.partition("@")
            if choice and package == (target or name.replace("/", ".")):
                return f"conf/{name}/{choice}.yaml"
    return ""
