"""What the search and the evaluation ask of a language model, and nothing more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class Request:
    """`n` continuations by `model` of a prompt in token ids.

    `key` is unique within a run: (problem, path of the node, kind, sample index). `problem` is the
    problem's id: requests of one share most of their prompts. `kind` is the kind of node that is
    written. A continuation ends before a `stop` string.
    """

    key: str
    problem: str
    model: str
    kind: str
    prompt_ids: tuple[int, ...]
    n: int
    stop: tuple[str, ...]
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One continuation; `finish` is `stop` (a stop string or the end of the turn) or `length`."""

    text: str
    tokens: int
    finish: str


@dataclass(frozen=True, kw_only=True)
class Response:
    """The `n` completions of a request, in the order of their sample index.

    `cached_tokens` of its prompt came out of the engine's prefix cache; `is_replayed` where the
    journal gave it, and no engine worked.
    """

    key: str
    completions: tuple[Completion, ...]
    cached_tokens: int = 0
    is_replayed: bool = False


class Engine(Protocol):
    """A model that continues prompts, many at once."""

    max_in_flight: int  # sequences that it works on at once; more wait in its queue
    honours_seeds: bool  # whether the same request gives the same completions

    def submit(self, request: Request) -> None:
        """Hand in a request; returns at once."""
        ...

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        """Work for a moment and return what is finished, which may be nothing.

        An engine that others work for waits at most `wait_s` for the first answer.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds; requests that wait are dropped."""
        ...
