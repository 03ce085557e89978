import gzip
import json
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco.errors import UserError
from marco.evaluation.tries import Vote, majority, solved_within

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "math_samples8" / "samples.jsonl.gz"


def test_chances_by_hand():
    assert solved_within(1, tries=4, correct=1) == 0.25
    assert solved_within(2, tries=4, correct=1) == 0.5  # 1 - 3/6
    assert solved_within(4, tries=4, correct=1) == 1.0
    assert solved_within(3, tries=8, correct=0) == 0.0
    assert solved_within(6, tries=8, correct=3) == 1.0  # only five can all be wrong


@settings(deadline=None)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(*[st.integers(0, n)] * 2, st.just(n))))
def test_the_chance_is_the_share_of_all_subsets(drawn):
    correct, k, tries = drawn
    k = max(k, 1)
    marks = [True] * correct + [False] * (tries - correct)
    slow = fmean(any(subset) for subset in combinations(marks, k))
    assert solved_within(k, tries=tries, correct=correct) == pytest.approx(slow)


def test_many_tries_do_not_overflow():
    assert solved_within(5000, tries=10_000, correct=1) == 0.5


@pytest.mark.parametrize(
    ("k", "tries", "correct", "told"),
    [
        (8, 4, 1, "Test@8 is undefined for 4 tries"),
        (0, 4, 1, "k >= 1"),
        (1, 4, 5, "5 correct of 4 tries"),
    ],
)
def test_what_is_undefined_is_refused(k, tries, correct, told):
    with pytest.raises(UserError, match=told):
        solved_within(k, tries=tries, correct=correct)


@pytest.mark.skipif(not SAMPLES.is_file(), reason="no sampled outputs beside the project")
def test_published_samples_have_the_published_figures():
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as file:
        marks = [[s["source_correct"] for s in json.loads(line)["samples"]] for line in file]
    found = [
        fmean(solved_within(k, tries=len(own), correct=sum(map(bool, own))) for own in marks)
        for k in (1, 2, 4, 8)
    ]
    assert found == pytest.approx([0.9100, 0.9329, 0.9510, 0.9600], abs=5e-5)


def tries(*told):
    names = {"+": "correct", "-": "wrong", "?": "no_answer"}
    return [{"id": "p", "answer": t[1:] or None, "verdict": names[t[0]]} for t in told]


def test_the_answer_of_most_tries_wins_and_silence_has_no_vote():
    assert majority(tries("-7", "+4", "?", "?", "?", "+4")) == Vote(
        answer="4", verdict="correct", is_tied=False
    )


def test_a_tie_is_told_and_goes_to_the_answer_that_came_first():
    assert majority(tries("-7", "+4", "+4", "-7", "-1")) == Vote(
        answer="7", verdict="wrong", is_tied=True
    )
    assert majority(tries("+4", "-7")).verdict == "correct"


def test_without_an_answer_there_is_no_vote():
    assert majority(tries("?", "?")) == Vote(answer=None, verdict="no_answer", is_tied=False)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["+4", "-7", "-1", "?"]), min_size=1, max_size=9))
def test_the_winner_has_as_many_votes_as_any(told):
    vote = majority(tries(*told))
    votes = [t[1:] for t in told if t != "?"]
    most = max(map(votes.count, votes), default=0)
    assert votes.count(vote.answer) == most
    assert vote.is_tied == (len({v for v in votes if votes.count(v) == most}) > 1)
