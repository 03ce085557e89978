"""Many searches on shared engines: none is lost, none is held up, each gets its own answers."""

from collections.abc import Generator

from marco.engines.protocol import Request, Response, Sampling
from marco.engines.scripted import ScriptedEngine
from marco.search.scheduler import Scheduler

from .searches import problem


def asking(*models: str):
    """A search that asks each model once, in turn, and returns what they said."""

    def start(one) -> Generator[list[Request], list[Response], list[str]]:
        said = []
        for model in models:
            request = Request(
                key=f"{one.id}/{model}",
                problem=one.id,
                model=model,
                kind="thinking",
                prompt_ids=(1,),
                n=1,
                stop=(),
                sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=9),
            )
            [response] = yield [request]
            said.append(response.completions[0].text)
        return said

    return start


def ran(start, engines, count=10):
    problems = enumerate(problem(i) for i in range(count))
    return dict(Scheduler(start, engines).run(problems, on_response=lambda *_: None))


def test_searches_that_ask_for_nothing_hold_up_no_one():
    engine = ScriptedEngine(lambda *_: "so", max_in_flight=4)
    assert ran(asking(), {"m": engine}) == {i: [] for i in range(10)}


def test_every_model_gets_its_own_requests():
    engines = {
        name: ScriptedEngine(lambda r, _, name=name: f"{name}: {r.key}", max_in_flight=3)
        for name in ("thinks", "checks")
    }
    found = ran(asking("thinks", "checks", "thinks"), engines)
    assert found[7] == ["thinks: p7/thinks", "checks: p7/checks", "thinks: p7/thinks"]
    assert len(engines["thinks"].requests) == 20 and len(engines["checks"].requests) == 10


def test_as_many_searches_are_open_as_an_engine_has_places_however_many_names_it_has():
    engine = ScriptedEngine(lambda *_: "so", max_in_flight=3)
    opened, most = set(), []

    def start(one):
        opened.add(one.id)
        most.append(len(opened))
        said = yield from asking("a", "b")(one)
        opened.remove(one.id)
        return said

    assert len(ran(start, {"a": engine, "b": engine})) == 10
    assert max(most) <= 3
