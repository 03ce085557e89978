"""Completions over HTTP: each request is answered once, whatever the servers do meanwhile."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from marco.engines.openai import OpenAIEngine, _allow_connections, _read
from marco.engines.protocol import Request, Response, Sampling
from marco.errors import UserError

from ..search.searches import PLAIN, pattern_of, problem, settings, starter
from .servers import Server, Trouble, answer, config

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=50)


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Server] = []

    def serve(trouble: Trouble = lambda _: None) -> Server:
        servers.append(Server(trouble, seed=len(servers)))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def request(key: str, *, n: int = 1, prompt: tuple[int, ...] = (1, 2, 3)) -> Request:
    return Request(
        key=key,
        problem=key.split("/")[0],
        model="m",
        kind="thinking",
        prompt_ids=prompt,
        n=n,
        stop=("</t>",),
        sampling=SAMPLING,
    )


def answered(engine: OpenAIEngine, *requests: Request, within_s: float = 60) -> list[Response]:
    """All responses, by the order of the requests; each comes once."""
    for each in requests:
        engine.submit(each)
    responses: list[Response] = []
    end = time.monotonic() + within_s
    while len(responses) < len(requests) and time.monotonic() < end:
        responses += engine.poll()
    assert Counter(r.key for r in responses) == Counter(r.key for r in requests)
    by_key = {r.key: r for r in responses}
    return [by_key[r.key] for r in requests]


def test_a_request_as_the_interface_has_it_and_its_answer(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARCO_TEST_KEY", "s3cret")
    server = serve()
    engine = OpenAIEngine("org/model", config(server, served_model="short"))
    [response] = answered(engine, request("p/0/a", n=3))
    engine.close()
    [body] = server.bodies
    assert body == {
        "model": "short",
        "prompt": [1, 2, 3],
        "n": 3,
        "max_tokens": 50,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["</t>"],
    }
    assert [c.text for c in response.completions] == [c["text"] for c in answer(body)["choices"]]
    assert [c.tokens for c in response.completions] == [2, 2, 2]
    assert response.cached_tokens == 1
    assert server.headers[0]["Authorization"] == "Bearer s3cret"


def test_seeds_go_only_to_servers_that_honour_them(serve: Any) -> None:
    server = serve()
    engine = OpenAIEngine("m", config(server, honours_seeds=True))
    assert engine.honours_seeds
    first, second, again = answered(engine, request("a"), request("b"), request("c"))
    engine.close()
    other = OpenAIEngine("m", config(server, honours_seeds=True), seed=1)  # the run's
    answered(other, request("a"))
    other.close()
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)


def test_a_prompt_without_room_is_answered_here_and_a_long_one_gets_the_room_there_is(
    serve: Any,
) -> None:
    server = serve()
    engine = OpenAIEngine("m", config(server, max_model_len=10))
    full, nearly = answered(
        engine, request("a", n=2, prompt=(1,) * 10), request("b", prompt=(1,) * 7)
    )
    engine.close()
    assert [(c.text, c.finish) for c in full.completions] == [("", "length")] * 2
    assert nearly.completions[0].finish == "stop"
    assert [body["max_tokens"] for body in server.bodies] == [3]


def test_a_problem_stays_with_a_replica_and_problems_are_spread(serve: Any) -> None:
    servers = [serve() for _ in range(3)]
    engine = OpenAIEngine("m", config(*servers, max_num_seqs=1000))
    requests = [request(f"p{p}/{i}/a", prompt=(p, i)) for i in range(4) for p in range(60)]
    answered(engine, *requests)
    engine.close()
    seen = [{body["prompt"][0] for body in server.bodies} for server in servers]
    assert sum(map(len, seen)) == 60  # no problem on two of them
    assert min(map(len, seen)) >= 8  # expected 20; below 8 once in 10,000


def test_when_a_replica_goes_only_its_own_problems_move() -> None:
    urls = [f"http://10.0.0.{i}:8000/v1" for i in range(8)]
    engines = [OpenAIEngine("m", config(*some)) for some in (urls, urls[:-1])]
    chosen = [
        [engine._choose(request(f"p{i}/0"), None).url for i in range(400)] for engine in engines
    ]
    for engine in engines:
        engine.close()
    assert set(chosen[0]) == set(urls)
    assert all(before == after for before, after in zip(*chosen, strict=True) if before != urls[-1])


def test_as_many_files_may_be_open_as_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 100_000))
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: asked.append(limits))
    for number in (100, 4000, 500_000):
        _allow_connections(number)
    assert asked == [(4512, 100_000), (100_000, 100_000)]


def test_a_full_replica_hands_on(serve: Any) -> None:
    servers = [serve(lambda _: "slow"), serve(lambda _: "slow")]
    engine = OpenAIEngine("m", config(*servers, max_num_seqs=2))
    answered(engine, *(request(f"same/{i}", prompt=(i,)) for i in range(4)))
    engine.close()
    assert [len(server.bodies) for server in servers] == [2, 2]


@pytest.mark.parametrize("kind", ["error", "reset", "truncated", "aborted", "odd", "stall"])
def test_what_fails_is_asked_for_again(serve: Any, kind: str) -> None:
    server = serve(lambda chance: kind if chance.random() < 0.5 else None)
    engine = OpenAIEngine("m", config(server, timeout_s=0.2))
    requests = [request(f"p{i}", n=2, prompt=(i,)) for i in range(20)]
    responses = answered(engine, *requests)
    engine.close()
    for asked, response in zip(requests, responses, strict=True):
        body = {"prompt": list(asked.prompt_ids), "n": 2}
        assert [c.text for c in response.completions] == [
            c["text"] for c in answer(body)["choices"]
        ]
    assert len(server.bodies) > 20


def test_what_a_server_refuses_for_good_is_told(serve: Any) -> None:
    server = serve()
    engine = OpenAIEngine("m", config(f"http://127.0.0.1:{server.port}/v2"))
    engine.submit(request("a"))
    with pytest.raises(UserError, match="/v2 refuses: HTTP 404"):
        answered(engine)
        for _ in range(50):
            engine.poll()
    engine.close()


def test_a_refusal_that_repeats_the_key_is_told_without_it(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARCO_TEST_KEY", "open-sesame")
    server = serve(lambda _: "no entry")
    engine = OpenAIEngine("m", config(server))
    engine.submit(request("a"))
    with pytest.raises(UserError, match=r"HTTP 401: .*Bearer \[removed\]") as told:
        answered(engine)
        for _ in range(50):
            engine.poll()
    engine.close()
    assert "Bearer open-sesame" in server.headers[0].values() and "sesame" not in str(told.value)


@pytest.mark.parametrize("key", ["11", "choices", "e"])
def test_a_key_that_is_a_word_of_answers_leaves_them_as_they_are(
    key: str, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARCO_TEST_KEY", key)
    server = serve()
    engine = OpenAIEngine("m", config(server))
    asked = [request(f"p{i}", prompt=(i,)) for i in range(30)]
    told = {c.text for response in answered(engine, *asked) for c in response.completions}
    engine.close()
    assert told == {answer(body)["choices"][0]["text"] for body in server.bodies}
    assert " 11" in told


def test_a_replica_that_knows_no_such_model_is_left_to_the_others(
    serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good, other = serve(), serve()
    strange = f"http://127.0.0.1:{other.port}/v2"
    engine = OpenAIEngine("m", config(strange, good, max_num_seqs=100))
    answered(engine, *(request(f"p{i}", prompt=(i,)) for i in range(30)))
    engine.close()
    assert f"{strange} is taken out: {strange} refuses: HTTP 404" in capsys.readouterr().out
    assert not other.bodies


def test_no_server_at_all_is_told_in_time() -> None:
    engine = OpenAIEngine("m", config("http://127.0.0.1:1/v1", give_up_after_s=0.5))
    engine.submit(request("a"))
    with pytest.raises(UserError, match="no replica of m has answered for .* kept: start again"):
        for _ in range(100):
            engine.poll()
    engine.close()


def test_a_slow_replica_is_not_waited_for_where_there_is_another(serve: Any) -> None:
    slow, quick = serve(lambda _: "stall"), serve()
    engine = OpenAIEngine("m", config(slow, quick, timeout_s=50, hedge_after_s=0.1))
    started = time.monotonic()
    answered(engine, *(request(f"p{i}", prompt=(i,)) for i in range(8)))
    assert time.monotonic() - started < 40
    assert len(quick.bodies) == 8
    answered(engine, *(request(f"p{i}", prompt=(i,)) for i in range(8, 40)))
    engine.close()
    asked = [body for body in slow.bodies if body["max_tokens"] > 1]  # the others are probes
    assert 3 <= len(asked) <= 8  # taken out: none of the later ones came to it
    assert all(body["prompt"][0] < 8 for body in asked)


def test_where_no_other_has_room_nothing_is_asked_twice(serve: Any) -> None:
    servers = serve(lambda _: "slow"), serve(lambda _: "slow")
    engine = OpenAIEngine("m", config(*servers, max_num_seqs=2, hedge_after_s=0.1))
    answered(engine, *(request(f"p{i}", prompt=(i,)) for i in range(4)))
    engine.close()
    assert sum(len(server.bodies) for server in servers) == 4


def test_an_idle_engine_does_not_give_up_at_the_first_failure(serve: Any) -> None:
    troubles = iter(["error"])
    server = serve(lambda _: next(troubles, None))
    engine = OpenAIEngine("m", config(server, give_up_after_s=1))
    time.sleep(1.2)
    answered(engine, request("a"))
    engine.close()


def test_what_came_before_a_refusal_is_handed_out_first(serve: Any) -> None:
    server = serve()
    engine = OpenAIEngine("m", config(server, max_num_seqs=10))
    engine.submit(request("a"))
    while not server.bodies:
        time.sleep(0.01)
    time.sleep(0.2)
    engine.answers.put(UserError("refused"))
    assert [response.key for response in engine.poll()] == ["a"]
    for _ in range(2):
        with pytest.raises(UserError, match="refused"):
            engine.poll()
    engine.close()


def test_half_a_character_is_replaced() -> None:
    choice = {"index": 0, "text": "a \ud83d b", "finish_reason": "stop"}
    read = _read(request("a"), {"choices": [choice], "usage": {"completion_tokens": 3}})
    assert read.completions[0].text == "a ? b"


def test_a_replica_that_dies_is_taken_out_probed_and_brought_back(
    serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mortal, other = serve(), serve()
    engine = OpenAIEngine("m", config(mortal, other, max_num_seqs=100))
    mortal.stop()
    answered(engine, *(request(f"p{i}/x", prompt=(i,)) for i in range(30)))
    told = capsys.readouterr().out
    assert f"{mortal.url} is taken out" in told
    mortal.start()
    end = time.monotonic() + 60
    while f"{mortal.url} is back" not in told and time.monotonic() < end:
        time.sleep(0.05)
        told += capsys.readouterr().out
    assert f"{mortal.url} is back" in told
    assert mortal.bodies[-1]["max_tokens"] == 1  # the probe
    asked = len(mortal.bodies)
    answered(engine, *(request(f"p{i}/y", prompt=(i,)) for i in range(30)))
    assert len(mortal.bodies) > asked
    engine.close()


def test_chaos_changes_no_tree(serve: Any) -> None:
    """30 % of all requests fail, and a replica dies on the way: the trees are the same."""

    def chaos(chance: random.Random) -> str | None:
        if chance.random() >= 0.3:
            return None
        return chance.choice(["error", "reset", "stall", "truncated", "aborted"])

    from marco.driver.scheduler import Scheduler

    pattern = pattern_of(
        {"prompt": {"thinking": 2}, "thinking": {"reflection": 2}, "reflection": {"answer": 2}}
    )
    start = starter(pattern, PLAIN, settings(wave=3))
    problems = [problem(i) for i in range(12)]

    def grown(*servers: Server, die: Server | None = None) -> list[str]:
        engine = OpenAIEngine("teacher", config(*servers, hedge_after_s=0.1, timeout_s=0.4))
        trees = {}
        for place, tree in Scheduler(start, {"teacher": engine}).run(
            enumerate(problems), on_response=lambda *_: None
        ):
            trees[place] = tree.to_json()
            if die and len(trees) == 3:
                die.stop()
        engine.close()
        return [trees[place] for place in sorted(trees)]

    quiet = grown(serve())
    mortal = serve(chaos)
    assert grown(serve(chaos), mortal, serve(chaos), die=mortal) == quiet
