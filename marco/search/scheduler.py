"""Runs the searches of many problems side by side on the engines they share."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from marco.engines.protocol import Engine, Request, Response
from marco.search.mcts import Search
from marco.search.tree import Tree
from marco.tasks.problem import Problem


class _Running:
    """A search, the requests it waits for, and the responses that have come so far."""

    def __init__(self, search: Search, waiting: list[Request]) -> None:
        self.search, self.waiting = search, waiting
        self.responses: dict[str, Response] = {}

    def take(self, response: Response) -> bool:
        """Keep a response; true once all have come."""
        self.responses[response.key] = response
        return len(self.responses) == len(self.waiting)

    def go_on(self) -> None:
        """Send the responses in the order of the requests; raises StopIteration with the tree."""
        responses = [self.responses[request.key] for request in self.waiting]
        self.responses = {}
        self.waiting = self.search.send(responses)


def run_searches(
    problems: Iterable[Problem],
    start: Callable[[Problem], Search],
    engines: Mapping[str, Engine],
    *,
    on_response: Callable[[Response], None],
) -> Iterator[tuple[int, Tree]]:
    """Trees as they are finished, each with the place of its problem.

    As many trees are open as the engines have places for sequences, so that the engines are kept
    full while at most that many trees are held in memory. Which trees run side by side has no
    influence on any of them: a search sees its own responses only, in the order of its requests.
    """
    queue = enumerate(problems)
    # A checkpoint in several roles is one engine.
    places = sum(engine.max_in_flight for engine in dict.fromkeys(engines.values()))
    owners: dict[str, tuple[int, _Running]] = {}
    opened = 0

    def submit(place: int, running: _Running) -> None:
        for request in running.waiting:
            owners[request.key] = (place, running)
            engines[request.model].submit(request)

    while True:
        while opened < places and (item := next(queue, None)) is not None:
            place, problem = item
            search = start(problem)
            try:
                running = _Running(search, next(search))
            except StopIteration as finished:  # it asked for nothing
                yield place, finished.value
                continue
            opened += 1
            submit(place, running)
        if not opened:
            return
        for engine in dict.fromkeys(engines.values()):
            for response in engine.poll():
                on_response(response)
                place, running = owners.pop(response.key)
                if not running.take(response):
                    continue
                try:
                    running.go_on()
                except StopIteration as finished:
                    opened -= 1
                    yield place, finished.value
                else:
                    submit(place, running)
