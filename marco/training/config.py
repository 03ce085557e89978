"""What a training run can be told; the numbers stand in `conf/loss/` and `conf/trainer/`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["bf16-master", "bf16-mixed", "32-true", "64-true"]
SaveDtype = Literal["bfloat16", "float16", "float32"]
Accelerator = Literal["cpu", "gpu"]
MaskScope = Literal["none", "preference", "all"]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PreferenceConfig(_Section):
    """The preference term: which loss of `PREFERENCE_LOSSES`, and its knobs."""

    name: Literal["dpo", "cdpo"]
    beta: float = Field(gt=0)
    epsilon: float | None = Field(ge=0, lt=0.5)

    @model_validator(mode="after")
    def _knobs_belong_to_the_loss(self) -> "PreferenceConfig":
        if self.name == "cdpo" and self.epsilon is None:
            raise ValueError("cdpo needs epsilon, the share of labels taken to be wrong")
        if self.name == "dpo" and self.epsilon is not None:
            raise ValueError("dpo has no epsilon: set it to null, or name the loss cdpo")
        return self

    @property
    def knobs(self) -> dict[str, float]:
        """The keyword arguments of the loss function."""
        knobs = {"beta": self.beta}
        return knobs if self.epsilon is None else knobs | {"epsilon": self.epsilon}


class LossConfig(_Section):
    """L = L_preference + alpha L_SFT, and where the common prefix carries no loss."""

    preference: PreferenceConfig | None
    alpha: float = Field(ge=0)
    mask: MaskScope

    @model_validator(mode="after")
    def _terms_make_sense(self) -> "LossConfig":
        if self.preference is None and self.alpha == 0:
            raise ValueError("no loss is left: preference is null and alpha is 0")
        if self.preference is None and self.mask != "none":
            raise ValueError(f"mask {self.mask!r} needs pairs, but preference is null: use none")
        return self


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
    accelerator: Accelerator
    devices: Literal[1]
    save_dtype: SaveDtype
