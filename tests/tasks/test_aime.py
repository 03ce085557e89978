import json
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.aime import AIME, AIMEConfig
from marco.tasks.problem import Problem
from tests.tasks.test_equality import settings

DATA = Path(__file__).parents[3] / "shared" / "data" / "aime"


def task(files: dict[str, str] | None = None, **changes: Any) -> AIME:
    sources = {
        year: {"file": (files or {}).get(year), "hub": "nowhere/aime", "hub_split": "test"}
        for year in ("2024", "2025")
    }
    values = {"years": [2024, 2025], "sources": sources, "train_file": None, "shots": 2}
    values |= {"validation_file": None, "grading": settings()}
    return AIME(AIMEConfig(name="aime", response_tokens=9, **values | changes))


def write(path: Path, answers: list[Any]) -> str:
    rows = [{"id": i, "problem": f"{i}?", "answer": answer} for i, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_years_are_one_task(tmp_path: Path) -> None:
    files = {
        "2024": write(tmp_path / "24.jsonl", ["073", 5]),
        "2025": write(tmp_path / "25.jsonl", ["336^\\circ", "0"]),
    }
    assert [(p.id, p.answer) for p in task(files).problems("test")] == [
        ("aime-2024-0", "73"),
        ("aime-2024-1", "5"),
        ("aime-2025-0", "336"),
        ("aime-2025-1", "0"),
    ]
    assert [p.id for p in task(files, years=[2025]).problems("test")] == [
        "aime-2025-0",
        "aime-2025-1",
    ]
    assert [p.id for p in task().read(Path(files["2024"]))] == ["0", "1"]


def test_a_year_without_a_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no source for 2023; task.sources has 2024, 2025"):
        task(years=[2023]).problems("test")


def test_there_is_a_test_split_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="aime has no train problems.*task.train_file=FILE"):
        task().problems("train")
    file = write(tmp_path / "v.jsonl", ["12"])
    assert [p.answer for p in task(validation_file=file).problems("validation")] == ["12"]


@pytest.mark.parametrize("answer", ["1000", "-5", "1/2", "", "12.5", None])
def test_gold_answers_are_integers_from_0_to_999(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(UserError, match="line 1: no `answer` that is an integer from 0 to 999"):
        task({"2024": write(tmp_path / "24.jsonl", [answer])}).problems("test")


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        ("\\boxed{073}", "correct"),
        ("\\boxed{73}", "correct"),
        ("\\boxed{m+n = 73}", "correct"),
        ("\\boxed{\\frac{146}{2}}", "correct"),
        ("The answer is $73^\\circ$.", "correct"),
        ("\\boxed{730}", "wrong"),
        ("\\boxed{7,3}", "wrong"),
        ("so it is 73", "no_answer"),
        ("<think>\\boxed{73}", "no_answer"),
    ],
)
def test_verify(response: str, verdict: str) -> None:
    assert task().verify(response, Problem(id="p", problem="?", answer="73")).verdict == verdict


@pytest.mark.skipif(not DATA.is_dir(), reason="no benchmarks beside the repository")
def test_the_published_problems() -> None:
    aime = task({"2024": str(DATA / "aime24.jsonl"), "2025": str(DATA / "aime25.jsonl")})
    problems = aime.problems("test")
    assert len(problems) == 60
    padded = [(f"\\boxed{{{int(p.answer):03}}}", p) for p in problems]
    assert {v.verdict for v in aime.verify_all(padded)} == {"correct"}
