"""Runs many walks side by side on the engines they share.

A walk is a generator: it yields the requests it waits for, is sent their responses, and returns
what it has found.
"""

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from marco.engines.protocol import Engine, Request, Response


class Item(Protocol):
    """What a walk is about; requests name it by `id` as their problem."""

    @property
    def id(self) -> str: ...


Placed = tuple[int, Any]  # the place of an Item, and the item
Walk = Generator[list[Request], list[Response], Any]


class _Running:
    """A walk, the requests it waits for, and the responses that have come so far."""

    def __init__(self, place: int, walk: Walk) -> None:
        self.place, self.walk = place, walk
        self.waiting: list[Request] = next(walk)
        self.responses: dict[str, Response] = {}
        self.tokens = 0

    def take(self, response: Response) -> bool:
        """Keep a response; true once all have come."""
        self.responses[response.key] = response
        self.tokens += sum(completion.tokens for completion in response.completions)
        return len(self.responses) == len(self.waiting)

    def go_on(self) -> None:
        """Send the responses in the order of the requests; raises StopIteration with the result."""
        responses = [self.responses[request.key] for request in self.waiting]
        self.responses = {}
        self.waiting = self.walk.send(responses)


# A request that waits for a slot. The heap's smallest comes first: the walk that has cost most
# tokens (negative here), and of equals the one that has waited longest (a number given once).
_Waiting = tuple[int, int, Request, _Running]


class _Lane:
    """An engine's queue: it is handed as many sequences as it works on at once, and no more."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.queue: list[_Waiting] = []
        self.owners: dict[str, tuple[Request, _Running]] = {}
        self.in_flight = self.queued = 0  # sequences

    def put(self, waiting: _Waiting) -> None:
        heapq.heappush(self.queue, waiting)
        self.queued += waiting[2].n

    def fill(self) -> None:
        """Hand requests to the engine while it has slots; a large one when it has nothing else."""
        while self.queue:
            *_, request, running = self.queue[0]
            if self.in_flight and self.in_flight + request.n > self.engine.max_in_flight:
                return
            heapq.heappop(self.queue)
            self.queued -= request.n
            self.in_flight += request.n
            self.owners[request.key] = request, running
            self.engine.submit(request)

    def poll(self, wait_s: float) -> Sequence[tuple[_Running, Request, Response]]:
        done = []
        for response in self.engine.poll(wait_s):
            request, running = self.owners.pop(response.key)
            self.in_flight -= request.n
            done.append((running, request, response))
        return done


class Scheduler:
    """Walks for many items at once; how many depends on what the engines can take.

    A walk is begun when the engines would have slots free otherwise, so that they are full and
    few walks are held in memory. Which walks run side by side has no influence on any of them:
    each sees its own responses only, in the order of its requests.
    """

    def __init__(
        self,
        start: Callable[[Any], Walk],
        engines: Mapping[str, Engine],
    ) -> None:
        self.start = start
        # A checkpoint in several roles is one engine.
        lanes = {id(engine): _Lane(engine) for engine in engines.values()}
        self.lanes = list(lanes.values())
        self.lane_of = {name: lanes[id(engine)] for name, engine in engines.items()}
        self._slots = sum(lane.engine.max_in_flight for lane in self.lanes)
        self.open = self.asked = self._rounds = self._filled = 0

    @property
    def fullness(self) -> float:
        """Sequences that the engines worked on, as a share of what they could, so far.

        What the journal answers has no part in it.
        """
        return self._filled / (self._slots * self._rounds) if self._rounds else 0.0

    def run(
        self, items: Iterable[Placed], *, on_response: Callable[[Request, Response], None]
    ) -> Iterator[tuple[int, Any]]:
        """What walks return, as they end, each with the place of its item."""
        queue = iter(items)
        while True:
            yield from self._open(queue)
            if not self.open:
                return
            for lane in self.lanes:
                lane.fill()
            filled, replayed = sum(lane.in_flight for lane in self.lanes), False
            busy = [lane for lane in self.lanes if lane.owners]
            wait_s = 0.1 if len(busy) == 1 else 0.001  # one must not keep the others waiting
            for lane in busy:
                for running, request, response in lane.poll(wait_s):
                    on_response(request, response)
                    replayed |= response.is_replayed
                    if not running.take(response):
                        continue
                    try:
                        running.go_on()
                    except StopIteration as finished:
                        self.open -= 1
                        yield running.place, finished.value
                    else:
                        self._submit(running)
            if not replayed:  # else no engine was asked
                self._filled += filled
                self._rounds += 1

    def _open(self, queue: Iterator[Placed]) -> Iterator[tuple[int, Any]]:
        """Begin walks while the engines have more slots than there are requests for them."""
        while sum(lane.in_flight + lane.queued for lane in self.lanes) < self._slots:
            if (item := next(queue, None)) is None:
                return
            place, about = item
            try:
                running = _Running(place, self.start(about))
            except StopIteration as finished:  # it asked for nothing
                yield place, finished.value
                continue
            self.open += 1
            self._submit(running)

    def _submit(self, running: _Running) -> None:
        for request in running.waiting:
            self.asked += 1
            self.lane_of[request.model].put((-running.tokens, self.asked, request, running))
