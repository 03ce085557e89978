"""The engines by name, and what a model's name stands for."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from marco.embedded import embedded_model
from marco.engines.protocol import Engine
from marco.engines.vllm import VLLMConfig, VLLMEngine


class ScriptedConfig(BaseModel):
    """The engine of tests; it takes its script from `marco.engines.registry.SCRIPTS`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["scripted"]
    script: str
    max_num_seqs: PositiveInt


EngineConfig = Annotated[VLLMConfig | ScriptedConfig, Field(discriminator="name")]
EMBEDDED = "embedded"


def make_engine(config: VLLMConfig | ScriptedConfig, model: Path | str) -> Engine:
    """Start an engine on a model (folder or hub name)."""
    if isinstance(config, VLLMConfig):
        return VLLMEngine(model, config)
    from marco.engines.scripted import SCRIPTS, ScriptedEngine

    return ScriptedEngine(SCRIPTS[config.script], max_in_flight=config.max_num_seqs)


def model_path(model: str, *, cache: Path) -> str:
    """A folder or hub name; `embedded` is the model that comes with the installation."""
    return str(embedded_model(cache)) if model == EMBEDDED else model
