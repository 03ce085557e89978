"""The numbers of the search; YAML (`conf/search/`) owns them."""

from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)


class SearchConfig(BaseModel):
    """Selection, stopping rules and budgets of the search of one tree.

    With `count: distinct` a finished leaf is closed and every chain counts once; with
    `count: visits` a finished leaf may be visited again and counts again (the released code). With
    `count: plain` there is no search: whole chains are sampled (`marco.search.plain`).
    `dry_run` searches a sample of the problems, and tells what all of them would cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    count: Literal["distinct", "visits", "plain"]
    c: NonNegativeFloat
    wave: PositiveInt
    enough_correct: PositiveInt
    enough_wrong: NonNegativeInt
    accept_correct: PositiveInt
    accept_rollouts: PositiveInt
    give_up_rollouts: PositiveInt
    max_rollouts: PositiveInt
    max_nodes: PositiveInt
    max_depth: PositiveInt
    max_tokens: PositiveInt
    max_backtracks: NonNegativeInt
    node_tokens: PositiveInt
    dry_run: bool
    dry_run_problems: PositiveInt = Field(ge=2)

    @model_validator(mode="after")
    def _stopping_rules_agree(self) -> Self:
        if self.accept_correct > self.enough_correct:
            raise ValueError("accept_correct is above enough_correct: it would never be reached")
        if self.node_tokens > self.max_tokens:
            raise ValueError("node_tokens is above max_tokens: no node could be written")
        if self.count == "plain" and self.dry_run:
            raise ValueError("plain sampling costs what search=distinct costs: dry_run that")
        return self
