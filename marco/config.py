"""The config of a run: checked whole, before a model loads, every problem at once."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from marco.config_errors import told
from marco.data.config import DataConfig, LengthConfig, PairsConfig
from marco.engines.registry import EngineConfig, engine_of
from marco.errors import UserError, near
from marco.evaluation.config import DecodingConfig
from marco.evaluation.error_classes import ErrorClassesConfig
from marco.processor import multiplies_bf16
from marco.reporting.config import LoggerConfig
from marco.reporting.figures import FigureName
from marco.reporting.paper import load_paper
from marco.search.pattern import AnyPattern, Kinds, MixedPattern
from marco.search.settings import SearchConfig
from marco.tasks.problem import Split
from marco.tasks.registry import TaskConfig
from marco.training.config import LossConfig, TrainerConfig

ROOT = Path(__file__).resolve().parents[1]

# `${if_bf16:YES,NO}` in a config file; resolved on the machine of the run.
OmegaConf.register_new_resolver(
    "if_bf16", lambda yes, no: yes if multiplies_bf16() else no, replace=True
)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(Section):
    """A model that takes part in the search; `model` is a folder, a hub name, or `embedded`.

    `engine` holds what differs from the section of that name, for this model.
    """

    model: str
    temperature: float = Field(gt=0)  # at 0 all children of a node would be the same
    top_p: float = Field(gt=0, le=1)
    engine: dict[str, Any]


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


class LocalCluster(Section):
    """All stages run on this machine."""

    name: Literal["local"]
    threads: PositiveInt | None


class RayCluster(Section):
    """The search runs on Ray; see `conf/cluster/ray.yaml`."""

    name: Literal["ray"]
    threads: PositiveInt | None
    address: str | None
    workers: PositiveInt
    cpus_per_worker: PositiveInt
    gpus_per_worker: NonNegativeInt
    max_restarts: NonNegativeInt


ClusterConfig = Annotated[LocalCluster | RayCluster, Field(discriminator="name")]


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
    """An experiment's table: its rows in order, and the paper's numbers beside them.

    `row` names the row that a config makes; a row whose title is null is a recipe, and has its
    title. Rows are compared within their `group`, if there are several. `trees` asks for what the
    trees behind the rows have yielded, too; `figures` are drawn beside the table. Of figure
    `sweep`, `swept` holds the key of the x-axis, and the one that tells curves apart, if any.
    """

    name: str
    row: str
    group: str = ""
    rows: dict[str, str | None] = Field(min_length=1)
    paper: str | None
    paper_column: str
    trees: bool
    figures: list[FigureName]
    swept: list[str] = Field(default=[], max_length=2)

    @model_validator(mode="after")
    def _a_sweep_has_a_setting(self) -> Self:
        if bool(self.swept) != ("sweep" in self.figures):
            raise ValueError(
                "figure `sweep` needs `swept`, the key that is swept, and no other does"
            )
        return self

    @field_validator("rows", mode="before")
    @classmethod
    def _names_are_text(cls, rows: Any) -> Any:
        # YAML reads a row named 0.5 as a number.
        return {str(k): v for k, v in rows.items()} if isinstance(rows, Mapping) else rows

    @property
    def titles(self) -> dict[str, str]:
        """The title of each row, in order."""
        return {row: title or recipe_title(row) for row, title in self.rows.items()}


class Config(Section):
    """Everything that a run can be told; a script that does without a section leaves it null."""

    seed: NonNegativeInt
    search_seed: NonNegativeInt
    outputs: Path
    confidence: float = Field(gt=0, lt=1)
    resamples: PositiveInt
    task: TaskConfig
    tasks: list[str] = Field(min_length=1)
    task_overrides: dict[str, dict[str, Any]]
    split: Split
    models: ModelsConfig
    engine: EngineConfig
    cluster: ClusterConfig
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
    error_classes: ErrorClassesConfig
    recipe: RecipeConfig
    trees: Path | None
    sft_data: str | None
    pair_data: str | None
    problems: Path | None
    responses: Path | None
    output_dir: Path | None
    retry: Literal["failed"] | None
    push_to_hub: str | None
    table: TableConfig | None

    @property
    def row(self) -> str:
        """The row of a table that this config makes."""
        return self.table.row if self.table else self.recipe.name

    @property
    def row_title(self) -> str:
        titles = self.table.titles if self.table else {}
        return titles.get(self.row, self.recipe.title)

    @field_validator("tasks")
    @classmethod
    def _each_task_once(cls, tasks: list[str]) -> list[str]:
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task is named twice")
        return tasks

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if problems := _misfits({name: getattr(self, name) for name in COMPARED}):
            raise ValueError("; ".join(problems))
        return self


# The sections that are compared with each other.
COMPARED: dict[str, Any] = {
    "pattern": AnyPattern,
    "kinds": Kinds,
    "models": ModelsConfig,
    "engine": EngineConfig,
    "decoding": DecodingConfig,
    "search": SearchConfig,
    "recipe": RecipeConfig,
    "loss": LossConfig,
    "table": TableConfig | None,
}


_ENGINE: Any = TypeAdapter(EngineConfig)


def _misfits(sections: Mapping[str, Any]) -> list[str]:
    """What does not fit between sections, as far as those that are needed for it are there."""
    problems: list[str] = []
    pattern, kinds, models = (sections.get(name) for name in ("pattern", "kinds", "models"))
    if pattern and kinds and models:
        options = pattern.options.values() if isinstance(pattern, MixedPattern) else [pattern]
        used = [(p.name, kind) for p in options for kind in sorted(p.kinds | set(p.max_run))]
        problems += [
            f"pattern {name}: unknown kind `{kind}`{near(kind, kinds)}"
            if kind not in kinds
            else f"models.roles: nobody writes `{kind}` (pattern {name})"
            for name, kind in used
            if kind not in kinds or kind not in models.roles
        ]
    if models:
        problems += [
            f"models.roles.{kind}: no checkpoint `{name}`{near(name, models.checkpoints)}"
            for kind, name in models.roles.items()
            if name not in models.checkpoints
        ]
    if models and (engine := sections.get("engine")):
        for name, checkpoint in models.checkpoints.items():
            try:
                _ENGINE.validate_python(engine_of(engine.model_dump(), checkpoint.engine))
            except ValidationError as error:
                where = f"models.checkpoints.{name}.engine"
                problems += [
                    f"{where}{''.join(f'.{part}' for part in e['loc'][1:])}: {e['msg']}"
                    for e in error.errors()
                ]
    if kinds and (loss := sections.get("loss")):
        problems += [
            f"loss.weights: unknown kind `{kind}`{near(kind, kinds)}"
            for kind in loss.weights
            if kind not in kinds
        ]
    decoding, search = sections.get("decoding"), sections.get("search")
    if decoding and search and decoding.method == "mcts":
        try:
            SearchConfig(**{**search.model_dump(), **decoding.search})
        except ValidationError as error:
            problems += [
                f"decoding.search{''.join(f'.{part}' for part in e['loc'])}: {e['msg']}"
                for e in error.errors()
            ]
    recipe, loss, table = (sections.get(name) for name in ("recipe", "loss", "table"))
    if recipe and loss and "preference" in recipe.trains and loss.preference is None:
        problems.append(f"recipe {recipe.name} needs pairs, but loss.preference is null")
    return problems + (_table_problems(table) if table else [])


def _valid_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that are right in themselves."""
    valid = {}
    for name, kind in COMPARED.items():
        adapter: Any = TypeAdapter(kind)
        with suppress(ValidationError):
            valid[name] = adapter.validate_python(values.get(name))
    return valid


def _table_problems(table: TableConfig) -> list[str]:
    recipes = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))
    problems = [
        f"table.rows: there is no conf/recipe/{row}.yaml{near(row, recipes)}"
        for row, title in table.rows.items()
        if title is None and row not in recipes
    ]
    if table.paper is not None:
        try:
            load_paper(table.paper, column=table.paper_column)
        except UserError as error:
            problems.append(f"table: {error}")
    return problems


def recipe_title(name: str) -> str:
    """The title of `conf/recipe/<name>.yaml`."""
    return OmegaConf.load(ROOT / "conf" / "recipe" / f"{name}.yaml").recipe.title


def check(cfg: DictConfig, choices: Mapping[str, Any]) -> Config:
    """The config as checked values; UserError with one line per problem: file, key, what is wrong.

    `choices` are Hydra's group choices, by which a key is traced to its file.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"the config lacks {', '.join(missing)}: set each on the command line")
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config: {str(error).splitlines()[0]}") from error
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines = [told(e, values, choices, Config) for e in error.errors(include_url=False)]
        if all(e["loc"] for e in error.errors()):  # else the sections were compared already
            lines += _misfits(_valid_sections(values))
        raise UserError("the config has problems:\n  " + "\n  ".join(lines)) from None
    return config.model_copy(update={"outputs": Path(os.path.abspath(config.outputs))})
