import pytest

from marco.engines.protocol import Completion, Request, Sampling
from marco.engines.scripted import ScriptedEngine


def request(key: str, n: int = 1) -> Request:
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=9)
    return Request(
        key=key, problem="p", model="m", kind="k", prompt_ids=(1,), n=n, stop=(), sampling=sampling
    )


def test_every_sample_is_answered_in_order() -> None:
    engine = ScriptedEngine(lambda request, sample: f"{request.key} says {sample}")
    engine.submit(request("a", n=2))
    [response] = engine.poll()
    assert response.key == "a"
    assert response.completions == (
        Completion(text="a says 0", tokens=3, finish="stop"),
        Completion(text="a says 1", tokens=3, finish="stop"),
    )
    assert engine.poll() == []


def test_a_completion_is_passed_on_as_it_is() -> None:
    completion = Completion(text="cut o", tokens=77, finish="length")
    engine = ScriptedEngine(lambda request, sample: completion)
    engine.submit(request("a"))
    assert engine.poll()[0].completions == (completion,)


def test_what_nobody_scripted_is_refused() -> None:
    engine = ScriptedEngine(lambda request, sample: None if request.key == "b" else "fine")
    engine.submit(request("a"))
    engine.poll()
    engine.submit(request("b"))
    with pytest.raises(KeyError, match="nobody scripted b, sample 0"):
        engine.poll()


@pytest.mark.parametrize(
    ("last_first", "polls"), [(False, ["ab", "cd", "e"]), (True, ["ba", "dc", "e"])]
)
def test_order_and_places(last_first: bool, polls: list[str]) -> None:
    engine = ScriptedEngine(lambda *_: "so", max_in_flight=2, last_first=last_first)
    for key in "abcde":
        engine.submit(request(key))
    assert ["".join(r.key for r in engine.poll()) for _ in range(3)] == polls
    assert [r.key for r in engine.requests] == list("abcde")


def test_close_drops_what_waits() -> None:
    engine = ScriptedEngine(lambda *_: "so")
    engine.submit(request("a"))
    engine.close()
    assert engine.poll() == []
