"""An engine without a model: it answers from a script, and refuses what nobody scripted."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from marco.engines.protocol import Completion, Request, Response

Script = Callable[[Request, int], str | Completion | None]


class ScriptedEngine:
    """Answers `script(request, sample)`; responses come in the order of submission, or reversed.

    Raises KeyError on a request that the script answers with None.
    """

    honours_seeds = True

    def __init__(self, script: Script, *, max_in_flight: int = 8, last_first: bool = False) -> None:
        self.script = script
        self.max_in_flight = max_in_flight
        self.last_first = last_first
        self.queue: list[Request] = []
        self.requests: list[Request] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self.queue.append(request)

    def poll(self) -> Sequence[Response]:
        batch, self.queue = self.queue[: self.max_in_flight], self.queue[self.max_in_flight :]
        if self.last_first:
            batch.reverse()
        return [
            Response(
                key=request.key,
                completions=tuple(self._answer(request, i) for i in range(request.n)),
            )
            for request in batch
        ]

    def close(self) -> None:
        self.queue.clear()

    def _answer(self, request: Request, sample: int) -> Completion:
        scripted = self.script(request, sample)
        if scripted is None:
            raise KeyError(f"nobody scripted {request.key}, sample {sample}")
        if isinstance(scripted, Completion):
            return scripted
        return Completion(text=scripted, tokens=len(scripted.split()), finish="stop")


def draws(request: Request, sample: int) -> str:
    """A number of 0..19 drawn from the request's key, as any node would hold it."""
    digest = hashlib.sha256(f"{request.key}/{sample}".encode()).digest()
    return f" {digest[0] % 20}"


SCRIPTS: Mapping[str, Script] = {"draws": draws}
