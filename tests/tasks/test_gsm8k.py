import json
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.gsm8k import EXAMPLES, GSM8K, GSM8KConfig

GRADED = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "example_model_solutions.jsonl"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
BENCHMARK = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"


def row(i: int) -> dict[str, str]:
    return {
        "question": f"What is {i} + 1000?",
        "answer": f"{i} + 1000 = {i + 1000}\n#### 1,0{i:02}",
    }


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def task(**changes: Any) -> GSM8K:
    values = {"hub": "nowhere/gsm8k", "train_file": None, "test_file": None, "train": None}
    values |= {"validation": 2, "test": None, "shots": 2}
    return GSM8K(GSM8KConfig(name="gsm8k", response_tokens=9, **values | changes))


def test_a_local_file(tmp_path: Path) -> None:
    file = write(tmp_path / "test.jsonl", [row(i) for i in range(4)])
    problems = task(test_file=str(file)).problems("test")
    assert [(p.id, p.problem, p.answer) for p in problems] == [
        (f"gsm8k-test-{i}", f"What is {i} + 1000?", str(1000 + i)) for i in range(4)
    ]
    assert task(test_file=str(file), test=3).problems("test") == problems[:3]


def test_validation_is_the_end_of_the_training_file(tmp_path: Path) -> None:
    file = str(write(tmp_path / "train.jsonl", [row(i) for i in range(6)]))
    answers = {
        split: [p.answer for p in task(train_file=file, train=3).problems(split)]
        for split in ("train", "validation")
    }
    assert answers == {"train": ["1000", "1001", "1002"], "validation": ["1004", "1005"]}
    with pytest.raises(UserError, match="task.validation=6: the training file has 6 problems"):
        task(train_file=file, validation=6).problems("train")


def test_the_plain_form(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "problem": "1 + 1?", "answer": 2},
        {"id": 7, "problem": "1 + 2?", "answer": "3.0"},
    ]
    problems = task(test_file=str(write(tmp_path / "p.jsonl", rows))).problems("test")
    assert [(p.id, p.answer) for p in problems] == [("x", "2"), ("7", "3")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 3: not JSON"),
        ("[1]", "line 3: not a JSON object"),
        ('{"answer": "#### 4"}', "line 3: no `question`"),
        ('{"question": " ", "answer": "#### 4"}', "line 3: no `question`"),
        ('{"question": 5, "answer": "#### 4"}', "line 3: no `question`"),
        ('{"question": "1 + 1?"}', "line 3: no gold answer"),
        ('{"question": "1 + 1?", "answer": null}', "line 3: no gold answer"),
        ('{"question": "1 + 1?", "answer": "####"}', "line 3: no gold answer"),
        ('{"question": "1 + 1?", "answer": "It is two."}', "line 3: no gold answer"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps(row(0)) + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"test.jsonl, {message}"):
        task(test_file=str(file)).problems("test")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*gone.jsonl: No such file"):
        task(test_file=str(tmp_path / "gone.jsonl")).problems("test")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(UserError, match="latin.jsonl: not UTF-8"):
        task(test_file=str(tmp_path / "latin.jsonl")).problems("test")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="empty.jsonl is empty"):
        task(test_file=str(tmp_path / "empty.jsonl")).problems("test")


def test_ids_that_occur_twice_are_refused(tmp_path: Path) -> None:
    rows = [{"id": id, "problem": f"{n}?", "answer": 1} for n, id in enumerate("abcb")]
    with pytest.raises(UserError, match="1 ids occur more than once, first 'b'"):
        task(test_file=str(write(tmp_path / "p.jsonl", rows))).problems("test")


@pytest.mark.skipif(not BENCHMARK.is_file(), reason="the benchmark is not beside the repository")
def test_every_gold_answer_of_the_benchmark_is_read() -> None:
    gsm8k = task(test_file=str(BENCHMARK))
    problems = gsm8k.problems("test")
    assert len(problems) == 1319
    assert all(p.answer.lstrip("-").isdigit() for p in problems)
    rows = [json.loads(line) for line in BENCHMARK.read_text("utf-8").splitlines()]
    for problem, row in zip(problems, rows, strict=True):  # the gold solution is a right response
        assert gsm8k.verify(row["answer"], problem).verdict == "correct"


@pytest.mark.skipif(not BENCHMARK.is_file(), reason="the benchmark is not beside the repository")
def test_no_example_is_a_problem_of_the_benchmark() -> None:
    problems = {p.problem.casefold() for p in task(test_file=str(BENCHMARK)).problems("test")}
    assert not problems & {example.problem.casefold() for example in EXAMPLES}


@pytest.mark.skipif(not GRADED.is_file(), reason="no graded outputs beside the repository")
def test_agreement_with_the_marks_of_real_outputs() -> None:
    """Four models' published outputs; the gold answers end in `A: 18`."""
    gsm8k, agree, count = task(), 0, 0
    for n, line in enumerate(GRADED.read_text("utf-8").splitlines(), 1):
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        problem = gsm8k.parse({"problem": row["question"], "answer": gold}, n, "graded")
        for model in MODELS:
            verdict = gsm8k.verify(row[model]["solution"], problem)
            agree += (verdict.verdict == "correct") == row[model]["is_correct"]
            count += 1
    assert count == 5276 and agree / count >= 0.99, f"{agree} of {count} marks"
