"""How a student can be sampled; the numbers stand in `conf/decoding/`."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

# The rules for stopping that tree decoding sets itself: it wants a number of chains, and no more.
STOPPING = (
    "count",
    "max_rollouts",
    "enough_correct",
    "enough_wrong",
    "accept_correct",
    "accept_rollouts",
    "give_up_rollouts",
)


class DecodingConfig(BaseModel):
    """How a student is sampled in evaluation; temperature 0 is greedy.

    `tries` at each problem, of which Test@k tells whether one of k solves it; with `majority` the
    answer most tries give is the one that counts. `max_tokens` of a reply, None for the task's own
    `response_tokens`. `method: mcts` takes the chains of a tree as
    tries; `search` holds what differs from the section of that name then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: Literal["sample", "mcts"]
    tries: PositiveInt
    test_at: list[PositiveInt]
    majority: bool
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: PositiveInt | None
    shots: NonNegativeInt
    search: dict[str, Any]
    tensor_parallel: PositiveInt

    @model_validator(mode="after")
    def _tries_differ(self) -> Self:
        if self.tries > 1 and self.temperature == 0:
            raise ValueError(f"tries={self.tries} at temperature 0 would all be the same: take 1")
        if self.method == "mcts" and self.temperature == 0:
            raise ValueError("method mcts needs a temperature: the children of a node would be one")
        if taken := sorted(set(self.search) & set(STOPPING)):
            raise ValueError(f"search: {', '.join(taken)} is set by `tries` in tree decoding")
        if self.majority and self.tries == 1:
            raise ValueError("majority needs tries > 1")
        return self
