"""What the config may say about logging."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LoggerConfig(BaseModel):
    """Where a row's metrics go; at its end it waits at most `finish_s` seconds for uploads.

    `sections` names the top-level parts of the config that may be logged. Validation error for a
    logger `none` that is told to log, and for `wandb` without a project.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["wandb", "none"]
    mode: Literal["auto", "offline", "online", "disabled"]
    project: str | None
    entity: str | None
    finish_s: Annotated[float, Field(ge=0)]
    sections: tuple[str, ...]

    @model_validator(mode="after")
    def _fields_fit(self) -> "LoggerConfig":
        if self.name == "none" and self.mode != "disabled":
            raise ValueError(f"logger none has mode disabled, got {self.mode}: use logger=wandb")
        if self.name == "wandb" and not self.project:
            raise ValueError("logger wandb needs a project")
        return self
