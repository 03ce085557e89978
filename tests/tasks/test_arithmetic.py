import re
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.answers import verify_number
from marco.tasks.arithmetic import EXAMPLES, Arithmetic, ArithmeticConfig
from marco.tasks.problem import Problem

SPLITS = ("train", "validation", "test")


def task(**changes: Any) -> Arithmetic:
    values = {"train": 300, "validation": 150, "test": 250, "problem_seed": 0, "shots": 4}
    return Arithmetic(ArithmeticConfig(name="arithmetic", response_tokens=9, **values | changes))


def read(text: str) -> tuple[str, int, int, int]:
    """The operation and its numbers, read off the story."""
    a, b, c = map(int, re.findall(r"\d+", text))
    return ("-" if text.endswith("left?") else "+"), a, b, c


def solve(text: str) -> int:
    sign, a, b, c = read(text)
    return a * b - c if sign == "-" else a * b + c


def test_gold_follows_from_the_text() -> None:
    for split in SPLITS:
        problems = task().problems(split)
        assert [p.answer for p in problems] == [str(solve(p.problem)) for p in problems]
        assert all(int(p.answer) > 0 for p in problems)
        assert {read(p.problem)[0] for p in problems} == {"+", "-"}


def test_splits_share_neither_texts_nor_numbers() -> None:
    """Two factors the other way round are the same numbers."""
    numbers = []
    for split in SPLITS:
        found = [read(p.problem) for p in task().problems(split)]
        numbers.append({(sign, frozenset((a, b)), c) for sign, a, b, c in found})
    assert not numbers[0] & numbers[1] and not numbers[0] & numbers[2]
    assert not numbers[1] & numbers[2]


def test_sizes_and_ids() -> None:
    problems = [p for split in SPLITS for p in task().problems(split)]
    assert len(problems) == 700
    assert len({p.id for p in problems}) == len({p.problem for p in problems}) == 700


def test_the_seed_decides() -> None:
    assert task().problems("test") == task().problems("test")
    assert task().problems("test") != task(problem_seed=1).problems("test")
    assert task(train=5).problems("test") == task().problems("test")


def test_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match=r"task\.test=9999: arithmetic has \d+ problems"):
        task(test=9999).problems("test")


def test_verify_tells_no_answer_from_a_wrong_one() -> None:
    problem = Problem(id="p", problem="", answer="46")
    answers = {"<answer>46</answer>": "correct", "<answer>45</answer>": "wrong", "46": "no_answer"}
    for response, verdict in answers.items():
        assert task().verify(response, problem).verdict == verdict


def test_examples_are_right_and_of_the_problems_form() -> None:
    for problem in task().problems("train")[:20]:
        examples = task().examples(problem)
        assert len(examples) == 4
        assert {read(e.problem)[0] for e in examples} == {read(problem.problem)[0]}
    for example in [e for examples in EXAMPLES.values() for e in examples]:
        assert int(example.answer) == solve(example.problem)
        assert verify_number(f"#### {example.answer}", str(solve(example.problem))).answer
        for step in (*example.steps, example.double_check):
            for a, sign, b, c in re.findall(r"(\d+) ([*+-]) (\d+) = (\d+)", step):
                assert {"*": int(a) * int(b), "+": int(a) + int(b), "-": int(a) - int(b)}[
                    sign
                ] == int(c)


def test_shots() -> None:
    problem = task().problems("train")[0]
    assert [len(task(shots=n).examples(problem)) for n in (0, 1, 3)] == [0, 1, 3]
