"""Many searches on shared engines: none is lost, none is held up, each gets its own answers."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from marco.driver.scheduler import Scheduler
from marco.engines.journal import Journal, JournaledEngine
from marco.engines.protocol import Request, Response, Sampling
from marco.engines.scripted import ScriptedEngine
from marco.search.start import draw_pattern, longest_first

from ..search.searches import problem
from ..test_config import checked


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
    return dict(Scheduler(start, engines).run(first(count), on_response=lambda *_: None))


def first(count):
    return enumerate(problem(i) for i in range(count))


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


def test_of_the_trees_that_wait_the_one_that_has_cost_most_goes_first():
    asked = {"p0": ("a", "b", "c"), "p1": ("a",), "p2": ("a", "b")}
    engine = ScriptedEngine(lambda *_: "two words", max_in_flight=2)
    scheduler = Scheduler(lambda one: asking(*asked[one.id])(one), dict.fromkeys("abc", engine))
    ended = [place for place, _ in scheduler.run(first(3), on_response=lambda *_: None)]
    keys = [request.key for request in engine.requests]
    assert keys == ["p0/a", "p1/a", "p0/b", "p2/a", "p0/c", "p2/b"]
    assert ended == [1, 0, 2]


def test_fullness_is_of_what_engines_worked_on(tmp_path: Path):
    """Four slots: three searches at first, then p0 alone; what the journal answers is no work."""
    asked = {"p0": ("a", "b"), "p1": ("a",), "p2": ("a",)}
    for journal_knows in (False, True):
        with closing(Journal(tmp_path / "worker-0.sqlite", run="r")) as journal:
            inner = ScriptedEngine(lambda *_: "so", max_in_flight=4)
            engine = JournaledEngine(inner, journal)
            engines = dict.fromkeys("ab", engine)
            scheduler = Scheduler(lambda one: asking(*asked[one.id])(one), engines)
            assert len(list(scheduler.run(first(3), on_response=lambda *_: None))) == 3
        assert scheduler.fullness == (0.0 if journal_knows else (3 / 4 + 1 / 4) / 2)


def test_long_trees_are_begun_first():
    config = checked("engine=scripted", "pattern=mixed", name="generate")
    some = list(first(40))
    ordered = longest_first(some, config.model_dump(mode="json"))
    assert sorted(ordered, key=lambda placed: placed[0]) == some != ordered
    drawn = [draw_pattern(config.pattern, config.search_seed, p) for _, p in ordered]
    sizes = [sum(sum(row.values()) for row in p.transitions.values()) for p in drawn]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 1
