"""An engine without a model: it answers from a script, and refuses what nobody scripted."""

import hashlib
import heapq
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from marco.engines.protocol import Completion, Request, Response

Script = Callable[[Request, int], str | Completion | None]


class ScriptedEngine:
    """Answers `script(request, sample)`; responses come in the order of submission, or reversed.

    With a latency each takes half of it to all of it, drawn from its key, and responses come as
    they are ready. Every request is noted in the file `log`, before it is answered. Raises KeyError
    on a request that the script answers with None.
    """

    honours_seeds = True

    def __init__(
        self,
        script: Script,
        *,
        max_in_flight: int = 8,
        last_first: bool = False,
        latency_s: float = 0.0,
        log: Path | None = None,
    ) -> None:
        self.script = script
        self.max_in_flight = max_in_flight
        self.last_first = last_first
        self.latency_s = latency_s
        self.log = log.open("a", buffering=1, encoding="utf-8") if log else None
        self.queue: deque[Request] = deque()
        self.running: list[tuple[float, int, Request]] = []  # a heap, by when it is ready
        self.requests: list[Request] = []
        self.numbers = count()

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self.queue.append(request)
        if self.log:
            self.log.write(request.key + "\n")

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        if self.latency_s:
            batch = self._ready()
        else:
            batch = [self.queue.popleft() for _ in range(min(self.max_in_flight, len(self.queue)))]
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
        self.running.clear()
        if self.log:
            self.log.close()

    def _ready(self) -> list[Request]:
        """Wait for the first that is ready, and take all that are by then."""
        while self.queue and len(self.running) < self.max_in_flight:
            request = self.queue.popleft()
            share = 0.5 + _drawn(request.key)[0] / 510
            due = time.monotonic() + self.latency_s * share
            heapq.heappush(self.running, (due, next(self.numbers), request))
        if self.running:
            time.sleep(max(0.0, self.running[0][0] - time.monotonic()))
        ready = []
        while self.running and self.running[0][0] <= time.monotonic():
            ready.append(heapq.heappop(self.running)[2])
        return ready

    def _answer(self, request: Request, sample: int) -> Completion:
        scripted = self.script(request, sample)
        if scripted is None:
            raise KeyError(f"nobody scripted {request.key}, sample {sample}")
        if isinstance(scripted, Completion):
            return scripted
        return Completion(text=scripted, tokens=len(scripted.split()), finish="stop")


def draws(request: Request, sample: int) -> str:
    """A number of 0..19 drawn from the request's key, as any node would hold it."""
    return f" {_drawn(f'{request.key}/{sample}')[0] % 20}"


def _drawn(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


SCRIPTS: Mapping[str, Script] = {"draws": draws}
