import json
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.ifeval import IFEval, IFEvalConfig

DATA = Path(__file__).parents[3] / "shared" / "data"
BENCHMARK = DATA / "ifeval" / "input_data.jsonl"
KNOWN = DATA / "calibration" / "ifeval_gpt4.jsonl"
RANDOM_LETTER = "1122"  # the official checkers draw a letter where it asks for `!`


def row(key: int, **changes: Any) -> dict[str, Any]:
    return {
        "key": key,
        "prompt": f"Describe lighthouse {key} without commas.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "less than", "num_words": 4}],
    } | changes


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def task(**changes: Any) -> IFEval:
    values = {"hub": "nowhere/ifeval", "train_file": None, "test_file": None, "train": None}
    values |= {"validation": 2, "test": None}
    return IFEval(IFEvalConfig(name="ifeval", response_tokens=9, **values | changes))


def test_a_local_file(tmp_path: Path) -> None:
    file = write(tmp_path / "test.jsonl", [row(i) for i in range(4)])
    problems = task(test_file=file).problems("test")
    assert [(p.id, p.problem) for p in problems] == [
        (str(i), f"Describe lighthouse {i} without commas.") for i in range(4)
    ]
    assert json.loads(problems[0].answer) == [
        {"id": "punctuation:no_comma", "kwargs": {}},
        {
            "id": "length_constraints:number_words",
            "kwargs": {"num_words": 4, "relation": "less than"},
        },
    ]
    assert task(test_file=file, test=3).problems("test") == problems[:3]


def test_the_splits_of_a_training_file(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", [row(i) for i in range(6)])
    ids = {
        split: [p.id for p in task(train_file=file, train=3).problems(split)]
        for split in ("train", "validation")
    }
    assert ids == {"train": ["0", "1", "2"], "validation": ["4", "5"]}
    with pytest.raises(UserError, match="task.validation=6: the training file has 6 problems"):
        task(train_file=file, validation=6).problems("train")


def test_without_a_training_file_there_is_a_test_split_only() -> None:
    for split in ("train", "validation"):
        with pytest.raises(UserError, match="no train problems .* task.train_file=FILE"):
            task().problems(split)


def test_the_plain_form(tmp_path: Path) -> None:
    ifeval = task()
    problem = ifeval.parse(row(7), 1, "here")
    plain = {"id": "7", "problem": problem.problem, "answer": problem.answer}
    assert ifeval.parse(plain, 1, "here") == problem
    assert ifeval.parse(plain | {"answer": json.loads(problem.answer)}, 1, "here") == problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "line 3: no `prompt`"),
        ({"instruction_id_list": ["punctuation:no_coma"]}, "line 3: `kwargs` is no list of 1"),
        (
            {"instruction_id_list": ["punctuation:no_coma"] * 2},
            "line 3: no instruction 'punctuation:no_coma'; did you mean .punctuation:no_comma",
        ),
        ({"kwargs": [{}, {"relation": "less than"}]}, "line 3: .*number_words lacks `num_words`"),
        ({"instruction_id_list": None}, "line 3: no `instruction_id_list`, and no `answer`"),
        ({"instruction_id_list": None, "answer": "4"}, "line 3: no `instruction_id_list`, and"),
        ({"instruction_id_list": None, "answer": "x"}, "line 3: not JSON: 'x'"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "test.jsonl", [row(0), row(1), row(2, **changes)])
    with pytest.raises(UserError, match=message):
        task(test_file=file).problems("test")


def test_verdict_and_answer() -> None:
    ifeval = task()
    problem = ifeval.parse(row(7), 1, "here")
    assert ifeval.verify("tall and white", problem).verdict == "correct"
    told = ifeval.verify("It is tall, and white.", problem)
    assert told.verdict == "wrong"
    assert told.details["strict"] == [False, False]
    assert ifeval.verify("<think>tall", problem).verdict == "no_answer"
    assert ifeval.answer_of("<think>tall</think> white ", problem) == "white"
    assert ifeval.answer_of("<think>tall", problem) is None


def test_figures_by_hand() -> None:
    ifeval = task()
    problem = ifeval.parse(row(7), 1, "here")
    responses = ["tall and white", "tall, white", "Here:\ntall and white", ""]
    samples = [
        {"id": str(i), "details": dict(ifeval.verify(response, problem).details)}
        for i, response in enumerate(responses)
    ]
    # Strict: both, the second, the first, none; loose: both, the second, both, none.
    assert ifeval.figures(samples) == {
        "prompt_strict": 1 / 4,
        "instruction_strict": 4 / 8,
        "prompt_loose": 2 / 4,
        "instruction_loose": 5 / 8,
        "official": (2 + 4 + 4 + 5) / 32,
        "prompts": 4,
        "instructions": 8,
    }


@pytest.mark.skipif(not BENCHMARK.is_file(), reason="the benchmark is not beside the repository")
def test_every_problem_of_the_benchmark_is_read() -> None:
    problems = task(test_file=str(BENCHMARK)).problems("test")
    assert len(problems) == 541
    assert sum(len(json.loads(problem.answer)) for problem in problems) == 834


@pytest.mark.skipif(not KNOWN.is_file(), reason="the known verdicts are not beside the repository")
def test_known_verdicts() -> None:
    ifeval = task(test_file=str(BENCHMARK))
    problems = {problem.id: problem for problem in ifeval.problems("test")}
    known = [json.loads(line) for line in KNOWN.read_text("utf-8").split("\n") if line]
    told = {
        str(answer["key"]): ifeval.verify(answer["response"], problems[str(answer["key"])]).details
        for answer in known
    }
    differ = {
        answer["key"]
        for answer in known
        for level in ("strict", "loose")
        if told[str(answer["key"])][level] != answer[level]
    }
    assert differ <= {int(RANDOM_LETTER)}
    assert len(known) == 140
