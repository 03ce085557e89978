import json

import pytest

from marco.errors import UserError
from marco.evaluation.metrics import class_names, summarise, votes_of
from marco.evaluation.statistics import ratio_with_interval, wilson


def sample(name, verdict, **more):
    return {"id": name, "verdict": verdict, **more}


def figures(samples, **choices):
    defaults = {"confidence": 0.95, "test_at": [], "majority": False, "resamples": 500, "seed": 0}
    return summarise(samples, **{**defaults, **choices})


def tried(problems):
    """Samples of the problems, a letter a try: + correct, - wrong, ? no answer."""
    names = {"+": "correct", "-": "wrong", "?": "no_answer"}
    answers = {"+": "4", "-": "7", "?": None}
    return [
        sample(name, names[mark], answer=answers[mark], **{"try": i})
        for name, marks in problems.items()
        for i, mark in enumerate(marks)
    ]


def of(k, n):
    return list(wilson(k, n, confidence=0.95))


def test_figures_by_hand():
    found = figures(
        [
            sample("a", "correct", tokens=10, finish="stop", error_class=None),
            sample("b", "wrong", tokens=20, finish="stop", error_class=None),
            sample("c", "no_answer", tokens=90, finish="length", error_class="repetition"),
            sample("d", "correct", tokens=40, finish="length", is_flagged=True),
        ],
        test_at=[1],
    )
    tokens = ratio_with_interval([10, 20, 90, 40], [1] * 4, confidence=0.95)
    assert found == {
        "confidence": 0.95,
        "n": 4,
        "n_samples": 4,
        "counted": "tries",
        "intervals": "wilson",
        "accuracy": 0.5,
        "accuracy_interval": of(2, 4),
        "accuracy_kind": "wilson",
        "no_answer": 0.25,
        "no_answer_interval": of(1, 4),
        "no_answer_kind": "wilson",
        "truncated": 0.5,
        "truncated_interval": of(2, 4),
        "truncated_kind": "wilson",
        "truncated_no_answer": 0.25,
        "truncated_no_answer_interval": of(1, 4),
        "truncated_no_answer_kind": "wilson",
        "truncation": {
            "n": 2,
            "finish_unknown": 0,
            "share": 0.5,
            "share_interval": of(2, 4),
            "share_kind": "wilson",
        },
        "flagged": 1,
        "tokens_mean": 40.0,
        "tokens_mean_interval": list(tokens),
        "error_classes": {
            "repetition": {
                "n": 1,
                "share": 0.25,
                "share_interval": of(1, 4),
                "share_kind": "wilson",
            }
        },
        "majority": None,
        "test_at": {
            "1": {
                "value": 0.5,
                "interval": of(2, 4),
                "kind": "wilson",
                "n": 4,
                "tries": 1,
                "estimator": "unbiased",
            }
        },
        "by_group": {},
        "by_turn": {},
    }
    assert json.loads(json.dumps(found)) == found


def test_no_answer_is_counted_apart_from_wrong():
    found = figures([sample("a", "no_answer"), sample("b", "wrong")])
    assert (found["accuracy"], found["no_answer"]) == (0.0, 0.5)


def test_unknown_lengths_are_none_and_not_zero():
    found = figures(
        [sample("a", "correct", tokens=3, finish="stop"), sample("b", "correct", finish=None)]
    )
    assert found["tokens_mean"] is found["tokens_mean_interval"] is None
    assert found["truncated"] is found["truncated_no_answer_interval"] is None


def test_what_was_cut_off_is_counted_by_its_class_where_the_finish_is_unknown():
    found = figures(
        [
            sample("a", "no_answer", finish=None, error_classes=["truncation", "repetition"]),
            sample("b", "correct", finish=None, error_classes=[{"name": "repetition"}]),
            sample("c", "correct", finish="length", error_classes=["truncation"]),
            sample("d", "correct", finish="stop", error_classes=["truncation"]),
        ]
    )
    assert found["truncated"] is None and set(found["error_classes"]) == {"repetition"}
    told = found["truncation"]
    assert (told["n"], told["finish_unknown"], told["share"]) == (2, 2, 0.5)
    assert told["share_interval"] == of(2, 4)


def test_each_interval_tells_its_own_kind():
    found = figures(tried({"a": "++--", "b": "+---", "c": "+++-"}))
    assert (found["accuracy_kind"], found["intervals"]) == ("bootstrap", "bootstrap")
    assert (found["no_answer_kind"], found["no_answer_interval"]) == ("wilson", of(0, 3))
    alike = figures(tried({"a": "++--", "b": "+-+-"}))
    assert (alike["intervals"], alike["accuracy_interval"]) == ("wilson", of(1, 2))


def test_one_problem_has_a_mean_of_tokens_without_an_interval():
    found = figures([sample("a", "correct", tokens=3)])
    assert (found["tokens_mean"], found["tokens_mean_interval"]) == (3.0, None)


def test_tries_are_samples_of_a_problem_and_no_problems_of_their_own():
    found = figures(tried({"a": "++++", "b": "----", "c": "++++", "d": "--+-"}))
    assert (found["n"], found["n_samples"], found["intervals"]) == (4, 16, "bootstrap")
    assert found["accuracy"] == 9 / 16
    low, high = found["accuracy_interval"]
    assert low < of(9, 16)[0] and high > of(9, 16)[1]


def test_tests_at_k_by_hand_and_undefined_above_the_tries():
    found = figures(tried({"a": "+---", "b": "++--", "c": "----"}), test_at=[1, 2, 4, 8])
    values = {k: told["value"] for k, told in found["test_at"].items()}
    assert values == {
        "1": pytest.approx((1 / 4 + 2 / 4) / 3),
        "2": pytest.approx((3 / 6 + 5 / 6) / 3),
        "4": pytest.approx(2 / 3),
        "8": None,
    }
    told = found["test_at"]["8"]
    assert (told["n"], told["tries"], told["interval"]) == (3, 4, None)
    assert told["why"] == "undefined: a problem has 4 tries, and needs 8"
    assert found["test_at"]["1"]["value"] == pytest.approx(found["accuracy"])
    assert found["test_at"]["1"]["interval"] == pytest.approx(found["accuracy_interval"])
    assert found["test_at"]["4"]["interval"] == of(
        2, 3
    )  # with all tries a problem is solved or not


def test_the_tries_of_a_problem_that_has_least_say_what_is_defined():
    found = figures(tried({"a": "++++", "b": "+-"}), test_at=[2, 4])["test_at"]
    assert (found["2"]["value"], found["4"]["value"], found["4"]["tries"]) == (1.0, None, 2)


def test_the_votes_figures_stand_beside_or_count():
    rows = tried({"a": "+-+", "b": "--+", "c": "???", "d": "+-?"})
    beside, counted = figures(rows), figures(rows, majority=True, test_at=[1])
    votes = {
        "accuracy": 0.5,
        "accuracy_interval": of(2, 4),
        "accuracy_kind": "wilson",
        "no_answer": 0.25,
        "no_answer_interval": of(1, 4),
        "no_answer_kind": "wilson",
        "n": 4,
        "tied": 1,
    }
    assert beside["majority"] == counted["majority"] == votes
    assert (beside["counted"], beside["accuracy"]) == ("tries", pytest.approx(4 / 12))
    assert (counted["counted"], counted["intervals"]) == ("votes", "wilson")
    assert (counted["accuracy"], counted["no_answer_interval"]) == (0.5, of(1, 4))
    assert counted["test_at"]["1"]["value"] == pytest.approx(4 / 12)


def test_without_answers_or_tries_there_is_no_vote():
    silent = [sample("a", "correct", **{"try": i}) for i in range(3)]
    assert votes_of(silent) is None
    assert figures(silent, majority=True)["counted"] == "tries"
    assert votes_of(tried({"a": "+", "b": "-"})) is None


def test_groups_and_turns_have_figures_of_their_own():
    rows = [
        sample(name, verdict, turn=turn, group=group)
        for name, group, verdicts in [
            ("a", "En", ["correct", "correct"]),
            ("b", "En", ["correct", "wrong"]),
            ("c", "Zh", ["wrong", "no_answer"]),
        ]
        for turn, verdict in enumerate(verdicts, 1)
    ]
    found = figures(rows)
    assert (found["n"], found["n_samples"], found["accuracy"]) == (3, 6, 0.5)
    assert list(found["by_group"]) == ["En", "Zh"] and list(found["by_turn"]) == ["1", "2"]
    assert found["by_group"]["En"]["accuracy"] == 0.75
    assert found["by_turn"]["2"]["accuracy_interval"] == of(1, 3)
    assert found["by_turn"]["2"]["no_answer"] == pytest.approx(1 / 3)
    alone = figures([row for row in rows if row["group"] == "Zh"])
    assert alone["by_group"] == {}


def test_a_sample_may_show_several_classes():
    findings = [{"name": "repetition", "start": 3}, {"name": "repetition", "start": 9}]
    assert class_names(sample("a", "wrong", error_classes=findings)) == {"repetition"}
    assert class_names(sample("a", "wrong", error_class="loop")) == {"loop"}
    assert class_names(sample("a", "wrong", error_class="loop", error_classes=[])) == set()
    assert class_names(sample("a", "wrong", error_classes=["loop", "truncation"])) == {"loop"}
    found = figures(
        [
            sample("a", "no_answer", error_classes=["repetition", "over_reflection"]),
            sample("b", "no_answer", error_classes=findings),
        ]
    )["error_classes"]
    assert {name: told["n"] for name, told in found.items()} == {
        "over_reflection": 1,
        "repetition": 2,
    }
    assert found["repetition"]["share_interval"] == of(2, 2)


def test_a_sample_counted_twice_is_refused_but_tries_are_not():
    tries = [sample("a", "correct", **{"try": 0}), sample("a", "wrong", **{"try": 1})]
    assert figures(tries)["n_samples"] == 2
    with pytest.raises(UserError, match="1 samples are counted twice, the first is 'a'"):
        figures([*tries, tries[0]])


def test_bad_samples_are_refused():
    with pytest.raises(UserError, match="no samples"):
        figures([])
    with pytest.raises(UserError, match="'a' has verdict True"):
        figures([sample("a", True)])


def test_the_same_seed_gives_the_same_figures():
    rows = tried({f"p{i}": "+-+" if i % 3 else "--?" for i in range(20)})
    assert figures(rows, seed=3, test_at=[1, 2]) == figures(rows, seed=3, test_at=[1, 2])


def test_tries_that_depend_on_those_before_count_in_their_order():
    marks = {"a": "nny", "b": "ynn"}
    verdicts = {"y": "correct", "n": "wrong"}
    samples = [
        {"id": id, "try": i, "verdict": verdicts[mark], "answer": mark}
        for id, own in marks.items()
        for i, mark in reversed(list(enumerate(own)))
    ]
    settings = {"confidence": 0.95, "test_at": [1, 2, 3], "majority": False}
    found = {
        ordered: summarise(samples, **settings, ordered=ordered, resamples=9, seed=0)["test_at"]
        for ordered in (True, False)
    }
    assert [found[True][k]["value"] for k in "123"] == [0.5, 0.5, 1]
    assert [found[False][k]["value"] for k in "123"] == pytest.approx([1 / 3, 2 / 3, 1])
