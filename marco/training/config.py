"""What a training run can be told; the numbers stand in `conf/loss/` and `conf/trainer/`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from marco.losses import PREFERENCE_LOSSES

Precision = Literal["bf16-master", "bf16-mixed", "bf16-true", "32-true", "64-true"]
SaveDtype = Literal["bfloat16", "float16", "float32"]
Accelerator = Literal["cpu", "gpu"]
MaskScope = Literal["none", "preference", "sft", "all"]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PreferenceConfig(_Section, extra="allow"):
    """The preference term: which loss of `PREFERENCE_LOSSES`, and its knobs beside the name."""

    name: str

    @model_validator(mode="before")
    @classmethod
    def _knobs_belong_to_the_loss(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "name" not in values:
            return values
        knobs = dict(values)
        name = knobs.pop("name")
        if (loss := PREFERENCE_LOSSES.get(str(name))) is None:
            raise ValueError(f"no loss is named {name!r}: there are {', '.join(PREFERENCE_LOSSES)}")
        return {"name": loss.name} | loss.check(knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keyword arguments of the loss function."""
        return dict(self.model_extra or {})


class LossConfig(_Section):
    """L = L_preference + alpha L_SFT, and which tokens count in which term.

    mask: the terms that the pair's common prefix carries no loss in; weights: of a token in the
    preference term, by the kind of its node, 1 for kinds that are not named.
    """

    preference: PreferenceConfig | None
    alpha: float = Field(ge=0)
    mask: MaskScope
    weights: dict[str, Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _terms_make_sense(self) -> "LossConfig":
        if self.preference is None and self.alpha == 0:
            raise ValueError("no loss is left: preference is null and alpha is 0")
        if self.preference is None and self.mask != "none":
            raise ValueError(f"mask {self.mask!r} needs pairs, but preference is null: use none")
        if self.preference is None and self.weights:
            raise ValueError("weights are of the preference term, but preference is null: use {}")
        return self


class LoraConfig(_Section):
    """A low-rank adapter (arXiv 2106.09685) that is trained in place of the whole model."""

    rank: Positive
    alpha: Positive
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] | Literal["all-linear"]


class ValidationConfig(_Section):
    """Problems held out of the training, and when their figures end it."""

    share: float = Field(ge=0, lt=1)
    every_steps: Positive
    metric: str
    patience: NonNegative

    @model_validator(mode="after")
    def _patience_needs_problems(self) -> "ValidationConfig":
        if self.patience and self.share == 0:
            raise ValueError("patience needs held-out problems: set share above 0")
        return self


class SamplesConfig(_Section):
    """What the student writes while it is trained: no part of what comes out."""

    every_steps: NonNegative
    problems: Positive
    max_tokens: Positive


class TrainerConfig(_Section):
    """How to optimise; sizes in tokens are packed tokens (a shared prefix counts once)."""

    epochs: Positive
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    warmup_ratio: float = Field(ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant"]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    precision: Precision
    micro_batch_tokens: Positive
    max_tokens: Positive
    gradient_checkpointing: bool
    lora: LoraConfig | None
    validation: ValidationConfig
    samples: SamplesConfig
    accelerator: Accelerator
    strategy: Literal["ddp", "fsdp"]
    devices: Positive
    nodes: Positive
    launch: str | None
    checkpoint_every_s: float = Field(ge=0)
    save_dtype: SaveDtype

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainerConfig":
        if self.strategy == "fsdp" and self.accelerator == "cpu":
            raise ValueError("strategy fsdp shards a model over GPUs: use ddp on CPUs")
        if self.strategy == "fsdp" and self.lora is not None:
            raise ValueError("lora with strategy fsdp is not supported: use ddp")
        return self

    @property
    def world_size(self) -> int:
        """Devices in all."""
        return self.devices * self.nodes

    @property
    def weights(self) -> Precision:
        """The precision that the model is loaded in: FSDP rounds fp32 shards by itself."""
        is_rounded = self.strategy == "fsdp" and self.precision == "bf16-master"
        return "32-true" if is_rounded else self.precision
