import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.answers import extract_expression
from marco.tasks.math import EXAMPLES, Math, MathConfig
from marco.tasks.problem import Problem
from tests.tasks.test_equality import settings

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmarks beside the repository")


def task(**changes: Any) -> Math:
    values = {"train_hub": "nowhere/math", "test_hub": "nowhere/math", "train_file": None}
    values |= {"test_file": None, "train": None, "validation": 2, "test": None, "shots": 2}
    values |= {"grading": settings()}
    return Math(MathConfig(name="math", response_tokens=9, **values | changes))


def gold(answer: str) -> Problem:
    return Problem(id="p", problem="?", answer=answer)


def rows(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


EXTRACTED = [
    # The tag.
    ("<answer>\nThe answer is: $\\frac{1}{2}$.\n</answer>", r"\frac{1}{2}", "tag"),
    ("<answer>x = 5</answer> \\boxed{6}", "x = 5", "tag"),
    ("<answer>So \\boxed{7}.</answer>", "7", "tag"),
    ("<answer>either $1$ or $-2$</answer>", "1, -2", "tag"),
    ("<answer></answer> The answer is 5.", None, "tag"),
    ("<answer>5", None, "no rule applies"),
    # The box.
    (r"so $\boxed{\frac{1}{\sqrt{2}}}$.", r"\frac{1}{\sqrt{2}}", "box"),
    (r"first \boxed{3}, then \boxed{4}", "4", "box"),
    (r"\boxed{4} and \boxed{5", "4", "box"),
    (r"\boxed{ \boxed{5} }", r"\boxed{5}", "box"),
    (r"\fbox{5}", "5", "box"),
    ("\\boxed{\n 12 \n}", "12", "box"),
    (r"The answer is $\boxed 5$.", "5", "box"),
    (r"thus \boxed\frac12.", r"\frac12", "box"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}", "box"),
    (r"\boxed {5}", "5", "box"),
    (r"\\boxed{\\frac{1}{2}}", r"\\frac{1}{2}", "box"),
    (r"\\{ \boxed{5\\}", r"5\\", "box"),
    (r"\boxed{}", None, "box"),
    (r"put it in \boxed and wait", None, "no rule applies"),
    (r"the answer is \boxed{7", None, "phrase"),
    (r"the answer is $\boxed{7$", None, "phrase"),
    (r"} } \boxed{5} {", "5", "box"),
    (r"\boxed{5}. The answer is 6.", "5", "box"),
    # The phrase.
    ("The answer is $x^2 + 1$ for all x.", "x^2 + 1", "phrase"),
    ("The final answer is: **5**.", "5", "phrase"),
    ("**Answer:** \\(\\frac{3}{4}\\)", r"\frac{3}{4}", "phrase"),
    ("ANSWER: 1,450", "1,450", "phrase"),
    ("The answer is\n\\[\nx = 2\n\\]\nand we are done.", "\nx = 2\n", "phrase"),
    ("The answers: the answer is $3$, $5$, and $7$, since $2$ fails.", "3, 5, 7", "phrase"),
    (r"The answer is $\$5$.", r"\$5", "phrase"),
    ("The answer is 7 * 6 = 42 because 7 is prime.", "7 * 6 = 42", "phrase"),
    ("The answer isn't 5.", None, "no rule applies"),
    ("Thus x = 5.", None, "no rule applies"),
    # Thoughts.
    ("<think>\\boxed{3}</think>\nThe answer is \\boxed{4}.", "4", "box"),
    ("<think>\\boxed{3}</think>\nThe answer is 4.", "4", "phrase"),
    ("<think>\\boxed{3}</think>\nDone.", None, "no rule applies"),
    ("<think>\\boxed{3}", None, "no rule applies"),
    ("\\boxed{3}</think>\\boxed{4}", "4", "box"),
    ("<think><answer>3</answer></think>The answer is 4.", "4", "phrase"),
    (
        "<|begin_of_thought|>\\boxed{1}<|end_of_thought|>\n"
        "<|begin_of_solution|>\\boxed{2}<|end_of_solution|>",
        "2",
        "box",
    ),
    ("<|begin_of_thought|>\nso \\boxed{1}, wait", None, "no rule applies"),
    ("", None, "no rule applies"),
]


@pytest.mark.parametrize(("response", "answer", "rule"), EXTRACTED)
def test_extract(response: str, answer: str | None, rule: str) -> None:
    found = extract_expression(response)
    assert found == (answer and answer.strip(), rule)


def test_verify() -> None:
    verdicts = [task().verify(r, gold("\\frac12")) for r in ("\\boxed{0.5}", "\\boxed{5}", "0.5")]
    assert [(v.verdict, v.answer) for v in verdicts] == [
        ("correct", "0.5"),
        ("wrong", "5"),
        ("no_answer", None),
    ]
    assert verdicts[0].why == "box; equal by its parts"


def test_what_costs_too_much_is_wrong_and_flagged(caplog: pytest.LogCaptureFixture) -> None:
    costly = {
        "9^{9^{9^{9}}}": "a tower of powers",
        "9^9^9": "a tower of powers",
        "2^{99999999}x": "an exponent above 10000",
        "100000!": "a factorial above 3000",
        "(" * 60 + "x": "nested deeper than 50",
        "x" * 2000: "longer than 1000 characters",
    }
    with caplog.at_level(logging.WARNING):
        verdicts = task().verify_all([(f"<answer>{text}</answer>", gold("5")) for text in costly])
    assert [v.verdict for v in verdicts] == ["wrong"] * len(costly)
    assert all(v.is_flagged for v in verdicts)
    assert [v.why for v in verdicts] == [f"tag; {why}" for why in costly.values()]
    assert len(caplog.records) == len(costly)


def test_a_time_out_is_wrong_and_flagged(caplog: pytest.LogCaptureFixture) -> None:
    """An integral that no check forbids, and that sympy tries for long."""
    slow = task(grading=settings(limit_s=1, max_characters=500))  # the fuzz test's workers
    hard = r"\int_0^{\infty} e^{-x^x} \ln(\sin x) dx"
    verdicts = slow.verify_all(
        [(f"\\boxed{{{hard}}}", gold("x")), ("\\boxed{x^2}", gold("x\\cdot x"))]
    )
    assert [v.verdict for v in verdicts] == ["wrong", "correct"]
    assert [v.is_flagged for v in verdicts] == [True, False]
    assert verdicts[0].why == "box; time-out after 1 s"
    assert "time-out after 1 s" in caplog.text


def test_equal_answers_are_one_in_a_vote() -> None:
    answers = [
        "\\boxed{0.5}",
        "\\boxed{\\frac12}",
        "The answer is $\\frac{1}{2}$.",
        "<answer>2/4</answer>",
    ]
    assert {task().answer_of(a, gold("1")) for a in answers} == {"1/2"}
    assert task().answer_of("\\boxed{ x + 1 }", gold("1")) == "x+1"
    assert task().answer_of("no", gold("1")) is None


def test_rows_in_several_forms(tmp_path: Path) -> None:
    file = write(
        tmp_path / "test.jsonl",
        [
            {"problem": "a", "answer": "\\frac12", "unique_id": "test/a/1.json"},
            {"problem": "b", "solution": "So $x = \\boxed{\\frac{1}{2}}$."},
            {"id": 7, "problem": "c", "answer": 3},
        ],
    )
    assert [(p.id, p.answer) for p in task(test_file=file).problems("test")] == [
        ("test/a/1.json", "\\frac12"),
        ("math-test-1", "\\frac{1}{2}"),
        ("7", "3"),
    ]
    assert len(task(test_file=file, test=2).problems("test")) == 2


def test_validation_is_the_end_of_the_training_file(tmp_path: Path) -> None:
    rows = [{"problem": f"{i}?", "answer": f"{i}"} for i in range(6)]
    file = write(tmp_path / "train.jsonl", [*rows, {"problem": "none?", "answer": ""}])
    math = task(train_file=file, train=3)
    assert [p.answer for p in math.problems("train")] == ["0", "1", "2"]
    assert [p.answer for p in math.problems("validation")] == ["4", "5"]
    with pytest.raises(UserError, match="task.validation=6: the training file has 6 problems"):
        task(train_file=file, validation=6).problems("train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "4"}, "no `problem`"),
        ({"problem": "1?"}, "no `answer`"),
        ({"problem": "1?", "answer": " "}, "no `answer`"),
        ({"problem": "1?", "solution": "It is 4."}, "no `answer`"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, row: dict[str, str], message: str) -> None:
    file = write(tmp_path / "test.jsonl", [{"problem": "0?", "answer": "0"}, row])
    with pytest.raises(UserError, match=f"test.jsonl, line 2: {message}"):
        task(test_file=file).problems("test")


def test_examples_are_right() -> None:
    assert [len(task(shots=n).examples(gold("1"))) for n in (0, 1, 2)] == [0, 1, 2]
    golds = {EXAMPLES[0].problem: "-1/2", EXAMPLES[1].problem: r"2+\sqrt{5}, 2-\sqrt{5}"}
    for example in EXAMPLES:
        response = f"<answer>\nThe answer is: {example.answer}\n</answer>"
        assert task().verify(response, gold(golds[example.problem])).verdict == "correct"


@needs_data
def test_calibration() -> None:
    cases = rows(DATA / "calibration" / "math_verdicts.jsonl")
    items = [(f"\\boxed{{{case['prediction']}}}", gold(case["gold"])) for case in cases]
    verdicts = task().verify_all(items)
    assert [v.verdict == "correct" for v in verdicts] == [case["expected"] for case in cases]
    outputs = rows(DATA / "calibration" / "extraction.jsonl")
    for case in (c for c in outputs if c["benchmark"] == "math500"):
        assert extract_expression(case["output"])[0] == case["expected_answer"]


@needs_data
def test_every_gold_answer_equals_itself() -> None:
    """Spelled otherwise, so that the same text does not decide alone."""
    math = task(
        train_file=str(DATA / "math_train" / "train.jsonl"),
        test_file=str(DATA / "math500" / "test.jsonl"),
    )
    problems = [p for split in ("train", "validation", "test") for p in math.problems(split)]
    assert len(problems) == 7998
    respelled = [p.answer.replace("\\frac", "\\dfrac").replace("\\left", "") for p in problems]
    items = [(f"The answer is ${text}$.", p) for text, p in zip(respelled, problems, strict=True)]
    verdicts = math.verify_all(items)
    assert [
        p.answer for p, v in zip(problems, verdicts, strict=True) if v.verdict != "correct"
    ] == []


@needs_data
def test_agreement_on_sampled_outputs() -> None:
    """The one that differs is 10000 for 10{,}000, which the source's grader got wrong."""
    items, marks = [], []
    for row in rows(DATA / "math_samples8" / "samples.jsonl.gz"):
        items += [(sample["output"], gold(row["answer"])) for sample in row["samples"]]
        marks += [sample["source_correct"] for sample in row["samples"]]
    verdicts = task().verify_all(items)
    other = [v for v, mark in zip(verdicts, marks, strict=True) if (v.verdict == "correct") != mark]
    assert len(items) == 800 and [(v.verdict, v.answer) for v in other] == [("correct", "10000")]


@needs_data
def test_no_example_is_a_problem_of_the_benchmark() -> None:
    files = (DATA / "math500" / "test.jsonl", DATA / "math_train" / "train.jsonl")
    problems = {row["problem"].casefold() for file in files for row in rows(file)}
    assert not problems & {example.problem.casefold() for example in EXAMPLES}
