"""What the data stages can be told; the numbers stand in `conf/{length,pairs,data}/`."""

from pydantic import BaseModel, ConfigDict, PositiveInt

from marco.data.buckets import Bucket
from marco.data.pairs import PairChoice
from marco.data.published import PublishedConfig
from marco.evaluation.error_classes import ErrorClass


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LengthConfig(_Section):
    """Which chains of a tree are taken, by their length relative to that tree's others."""

    bucket: Bucket


class PairsConfig(_Section):
    """How a chosen chain gets its rejected one, and how many pairs one tree gives at most."""

    choice: PairChoice
    per_tree: PositiveInt


class DataConfig(_Section):
    """How many SFT chains one tree gives at most, and which chains are not learnt from."""

    sft_per_tree: PositiveInt
    max_tokens: PositiveInt
    drop_error_classes: tuple[ErrorClass, ...]
    published: PublishedConfig | None
