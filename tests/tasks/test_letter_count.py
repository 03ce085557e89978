import json
import re
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.letter_count import EXAMPLES, WORDS, LetterCount, LetterCountConfig
from marco.tasks.problem import Problem

SPLITS = ("train", "validation", "test")
DATA = Path(__file__).parents[3] / "shared" / "data" / "letter_count" / "latter_count_hard.json"


def task(**changes: Any) -> LetterCount:
    values: dict[str, Any] = {f"{split}_file": None for split in SPLITS}
    values |= {"train": 300, "validation": 120, "test": 200, "problem_seed": 0, "shots": 2}
    return LetterCount(
        LetterCountConfig(name="letter_count", response_tokens=9, **values | changes)
    )


def read(text: str) -> tuple[str, list[str]]:
    """The word and the letters, read off the question."""
    word = re.findall(r"the word (\w+)\?", text)[0]
    letters = re.findall(r"letters? ([a-z])(?: and ([a-z]))? occur", text)[0]
    return word, [letter for letter in letters if letter]


def solve(text: str) -> int:
    word, letters = read(text)
    return sum(letter in letters for letter in word.lower())


def test_gold_follows_from_the_text() -> None:
    for split in SPLITS:
        problems = task().problems(split)
        assert [p.answer for p in problems] == [str(solve(p.problem)) for p in problems]
        assert {len(read(p.problem)[1]) for p in problems} == {1, 2}
        assert len({p.id for p in problems}) == len({p.problem for p in problems}) == len(problems)


def test_splits_share_no_word() -> None:
    train, validation, test = ({read(p.problem)[0] for p in task().problems(s)} for s in SPLITS)
    assert not train & validation and not train & test and not validation & test
    assert len(train) > 50 and len(validation) > 20 and len(test) > 30


def test_words_are_distinct() -> None:
    assert len(WORDS) == len(set(WORDS)) and all(word.isalpha() for word in WORDS)


def test_the_seed_decides() -> None:
    assert task().problems("test") == task().problems("test")
    assert task().problems("test") != task(problem_seed=1).problems("test")


def test_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match=r"task\.test=9999: letter_count has \d+ problems"):
        task(test=9999).problems("test")


def test_a_file(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "problem": "How many e and u are there in seesaw?", "solution": 2},
        {"id": "b", "problem": "How many s are there in seesaw?", "answer": "2"},
    ]
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = task(test_file=str(file)).problems("test")
    assert [(p.id, p.answer) for p in problems] == [("a", "2"), ("b", "2")]
    file.write_text('{"id": "a", "problem": "?"}\n')
    with pytest.raises(UserError, match="line 1: no `solution`"):
        task(test_file=str(file)).problems("test")


def test_verify() -> None:
    problem = Problem(id="p", problem="?", answer="3")
    answers = {"The answer is 3.": "correct", "\\boxed{2}": "wrong", "Three.": "no_answer"}
    for response, verdict in answers.items():
        assert task().verify(response, problem).verdict == verdict


def test_examples_are_right() -> None:
    assert [len(task(shots=n).examples(Problem(id="p", problem="?", answer="1"))) for n in (0, 2)]
    for example in EXAMPLES:
        word, letters = read(example.problem)
        assert word not in WORDS
        assert int(example.answer) == solve(example.problem)
        assert ", ".join(word) in " ".join(example.steps)
        places = [i for i, letter in enumerate(word, 1) if letter in letters]
        assert all(str(place) in example.steps[1] for place in places)


@pytest.mark.skipif(not DATA.is_file(), reason="no benchmarks beside the repository")
def test_the_published_answers_are_right() -> None:
    for row in json.loads(DATA.read_text("utf-8")):
        problem = task().parse(row, 1, "file")
        assert task().verify(f"#### {row['solution']}", problem).verdict == "correct"
