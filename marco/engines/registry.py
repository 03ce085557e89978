"""The engines by name, and what a model's name stands for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from marco.embedded import embedded_model
from marco.engines.openai import OpenAIConfig, OpenAIEngine
from marco.engines.protocol import Engine
from marco.engines.vllm import VLLMConfig, VLLMEngine
from marco.errors import UserError


class ScriptedConfig(BaseModel):
    """The engine of tests; it takes its script from `marco.engines.registry.SCRIPTS`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["scripted"]
    script: str
    max_num_seqs: PositiveInt
    latency_s: NonNegativeFloat
    log: Path | None


AnyEngine = VLLMConfig | OpenAIConfig | ScriptedConfig
EngineConfig = Annotated[AnyEngine, Field(discriminator="name")]
EMBEDDED = "embedded"
# The same weights once more, in files that neither vLLM nor transformers takes here.
OTHER_FORMS = ["*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "original/*", "onnx/*"]
WEIGHTS = [*OTHER_FORMS, "*.safetensors", "*.bin", "*.pt"]


def engine_of(section: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a checkpoint's engine: the section `engine` with what is its own; another
    kind of engine is told wholly.
    """
    is_another = own.get("name", section["name"]) != section["name"]
    return dict(own) if is_another else {**section, **own}


def share_of(settings: Mapping[str, Any], *, index: int, workers: int) -> Mapping[str, Any]:
    """A worker's share of servers that `workers` use together.

    Replicas of its own where there are enough, so that a problem's requests find their prefix; else
    its part of one replica's `max_num_seqs`.
    """
    urls = settings.get("urls")
    if not urls or workers == 1:
        return settings
    if len(urls) >= workers:
        return {**settings, "urls": urls[index::workers]}
    part = max(1, settings["max_num_seqs"] * len(urls) // workers)
    return {**settings, "urls": [urls[index % len(urls)]], "max_num_seqs": part}


def make_engine(config: AnyEngine, folder: Path, *, model: str, seed: int = 0) -> Engine:
    """Start an engine on a model: its folder, or its name where a server holds it.

    `seed` is that of the run; it matters where an engine honours seeds.
    """
    if isinstance(config, VLLMConfig):
        return VLLMEngine(folder, config)
    if isinstance(config, OpenAIConfig):
        return OpenAIEngine(model, config, seed=seed)
    from marco.engines.scripted import SCRIPTS, ScriptedEngine

    if config.script not in SCRIPTS:
        raise UserError(f"engine.script: no script {config.script!r}; there are {sorted(SCRIPTS)}")
    return ScriptedEngine(
        SCRIPTS[config.script],
        max_in_flight=config.max_num_seqs,
        latency_s=config.latency_s,
        log=config.log,
    )


def model_folder(model: str, *, cache: Path, weights: bool = True) -> Path:
    """The folder of a model: given as one, `embedded` (it comes with the installation), or a hub
    name, which is downloaded once, with its weights or without them. UserError where there is no
    such model.
    """
    if model == EMBEDDED:
        return embedded_model(cache)
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, ignore_patterns=OTHER_FORMS if weights else WEIGHTS))
    except Exception as error:  # the hub's client raises a dozen kinds
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"cannot get the model {model!r}: it is no folder, and the hub says "
            f"{type(error).__name__}: {reason}"
        ) from error
