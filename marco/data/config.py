"""What the data stages can be told; the numbers stand in `conf/{length,pairs,data}/`."""

from typing import Self

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

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
    """How many SFT chains one tree gives at most, and which chains are not learnt from.

    `annotations` is a file of what people said of the chains of trees (`marco.data.annotations`).
    """

    sft_per_tree: PositiveInt
    max_tokens: PositiveInt
    drop_error_classes: tuple[ErrorClass, ...]
    annotations: str | None
    published: PublishedConfig | None

    @model_validator(mode="after")
    def _annotations_are_of_trees(self) -> Self:
        if self.annotations is not None and self.published is not None:
            raise ValueError("annotations are of trees, and data.published takes chains from none")
        return self
