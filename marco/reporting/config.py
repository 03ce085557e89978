"""What the config may say about logging."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NoLoggerConfig(_Section):
    """Nothing is logged."""

    name: Literal["none"]


class LoggedConfig(_Section):
    """What every logger is told.

    A row's stages are looked at every `every_s` seconds, and at its end its log is waited for at
    most `finish_s` seconds. `samples` and `trees` count what is shown of a run, and `sections`
    names the top-level parts of a config that are logged.
    """

    every_s: PositiveFloat
    finish_s: PositiveFloat
    samples: NonNegativeInt
    trees: NonNegativeInt
    sections: tuple[str, ...]


class CsvConfig(LoggedConfig):
    """Logged to plain files."""

    name: Literal["csv"]


class TensorboardConfig(LoggedConfig):
    """Logged to event files."""

    name: Literal["tensorboard"]


class MlflowConfig(LoggedConfig):
    """Logged to MLflow: to the server at `address`, or to a database below the outputs."""

    name: Literal["mlflow"]
    experiment: Annotated[str, Field(min_length=1)]
    address: str | None


class WandbConfig(LoggedConfig):
    """Logged to Weights & Biases; `artifacts` says what goes up of the stages' files."""

    name: Literal["wandb"]
    mode: Literal["auto", "offline", "online", "disabled"]
    project: Annotated[str, Field(min_length=1)]
    entity: str | None
    artifacts: Literal["none", "manifests", "files"]


AnyLogger = CsvConfig | TensorboardConfig | MlflowConfig | WandbConfig
LoggerConfig = Annotated[NoLoggerConfig | AnyLogger, Field(discriminator="name")]
