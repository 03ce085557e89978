import pytest

from marco.errors import UserError
from marco.evaluation.metrics import summarise
from marco.evaluation.statistics import wilson


def sample(name, verdict, **more):
    return {"id": name, "verdict": verdict, **more}


def test_figures_by_hand():
    figures = summarise(
        [
            sample("a", "correct", tokens=10, finish="stop", error_class=None),
            sample("b", "wrong", tokens=20, finish="stop", error_class=None),
            sample("c", "no_answer", tokens=90, finish="length", error_class="repetition"),
            sample("d", "correct", tokens=40, finish="length", error_class=None),
        ],
        confidence=0.95,
    )
    assert figures == {
        "n": 4,
        "confidence": 0.95,
        "accuracy": 0.5,
        "accuracy_interval": list(wilson(2, 4, confidence=0.95)),
        "no_answer": 0.25,
        "no_answer_interval": list(wilson(1, 4, confidence=0.95)),
        "truncated": 0.5,
        "tokens_mean": 40.0,
        "error_classes": {"repetition": 1},
    }


def test_no_answer_is_counted_apart_from_wrong():
    figures = summarise([sample("a", "no_answer"), sample("b", "wrong")], confidence=0.95)
    assert (figures["accuracy"], figures["no_answer"]) == (0.0, 0.5)


def test_unknown_lengths_are_none_and_not_zero():
    figures = summarise(
        [sample("a", "correct", tokens=3, finish="stop"), sample("b", "correct")], confidence=0.95
    )
    assert figures["tokens_mean"] is None
    assert figures["truncated"] is None


def test_a_sample_counted_twice_is_refused_but_tries_are_not():
    tries = [sample("a", "correct", **{"try": 0}), sample("a", "wrong", **{"try": 1})]
    assert summarise(tries, confidence=0.95)["n"] == 2
    with pytest.raises(UserError, match="1 samples are counted twice, the first is 'a'"):
        summarise([*tries, tries[0]], confidence=0.95)


def test_bad_samples_are_refused():
    with pytest.raises(UserError, match="no samples"):
        summarise([], confidence=0.95)
    with pytest.raises(UserError, match="'a' has verdict True"):
        summarise([sample("a", True)], confidence=0.95)
