"""Node kinds and patterns: what a thought may be, and which may follow which. All of it is data."""

from functools import cached_property
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

PROMPT = "prompt"
ANSWER = "answer"

Row = dict[str, PositiveInt]


class NodeKind(BaseModel):
    """A kind of thought: its tag, and the prefixes of which one is written before the model.

    A prefix that holds the closing tag is the whole node, and nothing is generated for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: Annotated[str, Field(pattern=r"^[a-z][a-z_-]*$")]
    prefixes: list[str] = Field(min_length=1)

    @property
    def opening(self) -> str:
        return f"<{self.tag}>\n"

    @property
    def closing(self) -> str:
        return f"</{self.tag}>"

    def write(self, prefix: str, generated: str) -> str:
        """The text of a node: tags, prefix and what the model wrote."""
        body = prefix.removesuffix("\n").removesuffix(self.closing) + generated
        return f"{self.opening}{body.strip()}\n{self.closing}\n"


Kinds = dict[str, NodeKind]


class Pattern(BaseModel):
    """A transition matrix: `transitions[kind]` says which kinds follow, and how many of each.

    `max_run` limits how often a kind may stand in a row; `on_wrong` is the row that a wrong answer
    adds to the node before it (error backtracking; empty: no error feedback). Figure 2 of
    arXiv 2503.01461.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    transitions: dict[str, Row]
    max_run: dict[str, PositiveInt]
    on_wrong: Row

    @field_validator("transitions")
    @classmethod
    def _starts_and_ends(cls, transitions: dict[str, Row]) -> dict[str, Row]:
        if not transitions.get(PROMPT):
            raise ValueError(f"no row for `{PROMPT}`: nothing can start")
        if ANSWER in transitions:
            raise ValueError(f"`{ANSWER}` ends a chain and takes no row")
        return transitions

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if PROMPT in self.kinds:
            raise ValueError(f"`{PROMPT}` starts a chain and follows nothing")
        if unknown := sorted(set(self.max_run) - self.kinds):
            raise ValueError(f"max_run names `{'`, `'.join(unknown)}`, which never occurs")
        return self

    @model_validator(mode="after")
    def _every_kind_reaches_an_answer(self) -> Self:
        reached, frontier = set[str](), [PROMPT, *self.on_wrong]
        while frontier:
            kind = frontier.pop()
            if kind not in reached:
                reached.add(kind)
                frontier += self.transitions.get(kind, {})
        if ANSWER not in reached:
            raise ValueError(f"no way from `{PROMPT}` to `{ANSWER}`")
        ends = {ANSWER}
        while more := {
            k for k, row in self.transitions.items() if k not in ends and ends & set(row)
        }:
            ends |= more
        if dead := sorted(reached - ends):
            raise ValueError(f"dead end: no `{ANSWER}` can follow `{'`, `'.join(dead)}`")
        if unused := sorted(set(self.transitions) - reached):
            raise ValueError(f"nothing leads to `{'`, `'.join(unused)}`")
        return self

    @cached_property
    def kinds(self) -> frozenset[str]:
        """All kinds that may occur, without the prompt."""
        rows = [*self.transitions.values(), self.on_wrong]
        return frozenset(kind for row in rows for kind in row)

    @cached_property
    def to_answer(self) -> dict[str, int]:
        """The fewest nodes from a kind to the answer, both counted (`answer` itself: 1)."""
        lengths = {ANSWER: 1}
        while more := {
            kind: 1 + min(lengths[k] for k in row if k in lengths)
            for kind, row in self.transitions.items()
            if kind not in lengths and lengths.keys() & row.keys()
        }:
            lengths |= more
        return lengths

    def row(self, kinds: list[str], *, wrong_below: bool, left: int) -> Row:
        """What may follow a path of kinds (the prompt first) that has `left` nodes to go at most.

        A kind from which no answer can be reached in that many nodes is left out.
        """
        row = dict(self.transitions.get(kinds[-1], {}))
        for kind, limit in self.max_run.items():
            if kinds[-limit:] == [kind] * limit:
                row.pop(kind, None)
        if wrong_below:  # what mends an answer may go past max_run: it is never asked for twice
            for kind, n in self.on_wrong.items():
                row[kind] = max(n, row.get(kind, 0))
        return {kind: n for kind, n in row.items() if self.to_answer[kind] <= left}


class MixedPattern(BaseModel):
    """Several patterns, of which one is drawn per problem."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Pattern] = Field(min_length=1)


AnyPattern = Annotated[
    Annotated[Pattern, Tag("Pattern")] | Annotated[MixedPattern, Tag("MixedPattern")],
    # By what it holds, so that an error in one is not told of the other too.
    Discriminator(
        lambda values: (
            "MixedPattern"
            if isinstance(values, MixedPattern)
            or (isinstance(values, dict) and "options" in values)
            else "Pattern"
        )
    ),
]
