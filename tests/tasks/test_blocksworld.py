import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marco.errors import UserError
from marco.search.pattern import Kinds, Pattern
from marco.tasks.blocks import COLOURS, Instance, execute, read_instance, write_instance
from marco.tasks.blocksworld import EXAMPLES, Blocksworld, BlocksworldConfig
from marco.tasks.examples import chat, lay_out
from marco.tasks.files import read_rows
from marco.tasks.problem import Problem

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
INSTANCES = DATA / "blocksworld" / "instances.jsonl"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark beside the repository")

PDDL = (
    "(define (problem p) (:domain blocksworld-4ops)\n(:objects a b)\n(:init (on b a) (ontable a) "
    "(clear b) (handempty))\n(:goal (and (on a b))))"
)
GOLD = (
    "(define (problem blocks) (:domain blocksworld-4ops) (:objects a b) "
    "(:init (clear b) (handempty) (on b a) (ontable a)) (:goal (and (on a b))))"
)
RIGHT = "[PLAN]\nunstack b a\nput down b\npick up a\nstack a b\n[PLAN END]"


def row(i: int) -> dict[str, str]:
    return {"id": f"own-{i}", "pddl": PDDL, "query_zero_shot": f"Blue is on red. Turn it, {i}."}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def task(**changes: Any) -> Blocksworld:
    values = {"train_file": None, "test_file": None, "train": None, "validation": 2, "test": None}
    return Blocksworld(
        BlocksworldConfig(name="blocksworld", response_tokens=9, **values | {"shots": 2} | changes)
    )


PROBLEM = Problem(id="p", problem="Turn it.", answer=GOLD)


def test_a_local_file(tmp_path: Path) -> None:
    file = write(tmp_path / "test.jsonl", [row(i) for i in range(4)])
    problems = task(test_file=file).problems("test")
    assert [(p.id, p.problem, p.answer) for p in problems] == [
        (f"own-{i}", f"Blue is on red. Turn it, {i}.", GOLD) for i in range(4)
    ]
    assert task(test_file=file, test=3).problems("test") == problems[:3]


def test_the_plain_form_and_a_tree_s_text_are_enough(tmp_path: Path) -> None:
    first = task().parse(row(0), 1, "here")
    unnamed = {key: value for key, value in row(1).items() if key != "id"}
    rows = [{"id": 7, "problem": first.problem, "answer": first.answer}, unnamed]
    problems = task(test_file=write(tmp_path / "p.jsonl", rows)).problems("test")
    assert (problems[0].id, problems[1].id) == ("7", "blocksworld-1")
    assert problems[0].answer == first.answer
    assert task().verify(RIGHT, problems[0]).verdict == "correct"


def test_validation_is_the_end_of_the_training_file(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", [row(i) for i in range(6)])
    ids = {
        split: [p.id for p in task(train_file=file, train=3).problems(split)]
        for split in ("train", "validation")
    }
    assert ids == {"train": ["own-0", "own-1", "own-2"], "validation": ["own-4", "own-5"]}
    with pytest.raises(UserError, match="task.validation=6: the training file has 6 problems"):
        task(train_file=file, validation=6).problems("train")


def test_without_a_file_there_is_no_split() -> None:
    for split, key in (("train", "train"), ("validation", "train"), ("test", "test")):
        with pytest.raises(UserError, match=f"give a file with task.{key}_file=FILE"):
            task().problems(split)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pddl": None}, "no `pddl` \\(or `answer`\\)"),
        ({"query_zero_shot": " "}, "no `query_zero_shot` \\(or `problem`\\)"),
        ({"pddl": "stack them"}, "no PDDL instance"),
        ({"pddl": PDDL.replace("objects a b", "objects a b z1")}, "block 'z1' has no colour"),
        ({"pddl": PDDL.replace("(clear b)", "")}, "is no state"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, changes: Any, message: str) -> None:
    file = write(tmp_path / "test.jsonl", [row(0), row(1) | changes])
    with pytest.raises(UserError, match=f"test.jsonl, line 2: .*{message}"):
        task(test_file=file).problems("test")


def test_ids_that_occur_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 ids occur more than once, first 'own-0'"):
        task(test_file=write(tmp_path / "p.jsonl", [row(0), row(1), row(0)])).problems("test")


def test_the_config_that_ships() -> None:
    values = yaml.safe_load((ROOT / "conf" / "task" / "blocksworld.yaml").read_text("utf-8"))
    config = BlocksworldConfig(**values)
    assert config.shots == len(EXAMPLES)


@pytest.mark.parametrize(
    ("response", "verdict", "answer", "why"),
    [
        (
            RIGHT,
            "correct",
            "(unstack b a) (put-down b) (pick-up a) (stack a b)",
            "goal reached in 4 actions",
        ),
        (
            "<think>[PLAN]\npick up a\n[PLAN END]</think>" + RIGHT,
            "correct",
            "(unstack b a) (put-down b) (pick-up a) (stack a b)",
            "goal reached in 4 actions",
        ),
        (
            f"<thinking>\nunstack a b\n</thinking>\n<answer>\nThe answer is: {RIGHT}\n</answer>",
            "correct",
            "(unstack b a) (put-down b) (pick-up a) (stack a b)",
            "goal reached in 4 actions",
        ),
        (
            "unstack b a\nput down b\npick up b\nstack b a",
            "wrong",
            "(unstack b a) (put-down b) (pick-up b) (stack b a)",
            "goal not reached in 4 actions: a is not on b",
        ),
        ("pick up a", "wrong", "(pick-up a)", "action 1, pick-up a: a is not clear"),
        ("pick up c", "wrong", "(pick-up c)", "action 1, pick-up c: there is no block c"),
        # A right plan after a wrong one is a second attempt.
        ("[PLAN]\npick up a\n[PLAN END]\nNo:\n" + RIGHT, "wrong", "(pick-up a)", None),
        (
            "unstack b a\nstack b on the table\npick up a\nstack a b",
            "wrong",
            "(unstack b a) 'stack b on the table'",
            "'stack b on the table' is no action",
        ),
        ("", "no_answer", None, "no action"),
        ("I do not know.", "no_answer", None, "no action"),
        ("[PLAN]\n[PLAN END]", "no_answer", None, "no action"),
        ("<think>" + RIGHT, "no_answer", None, "no action"),
        ("<think>" + RIGHT + "</think>", "no_answer", None, "no action"),
        (RIGHT + "<answer>so it is</answer>", "no_answer", None, "no action"),
    ],
)
def test_verdicts(response: str, verdict: str, answer: str | None, why: str | None) -> None:
    found = task().verify(response, PROBLEM)
    assert (found.verdict, found.answer) == (verdict, answer)
    assert why is None or found.why == why
    json.dumps([found.answer, found.why]).encode()


@given(st.text())
def test_any_response_has_a_verdict(text: str) -> None:
    found = task().verify(text, PROBLEM)
    assert (found.verdict == "no_answer") == (found.answer is None)
    assert found.why


# What the examples' problems say, for the verifier.
TOLD = [
    "(:objects a d e f) (:init (on e f) (on a d) (ontable f) (ontable d) (clear e) (clear a) "
    "(handempty)) (:goal (on f e))",
    "(:objects b d e f) (:init (on d e) (ontable e) (ontable f) (ontable b) (clear d) (clear f) "
    "(clear b) (handempty)) (:goal (and (on d f) (on e d)))",
]
COLOUR_OF = {block: colour for colour, block in COLOURS.items()}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_are_right_in_every_pattern(
    number: int, pattern: Pattern, kinds: Kinds
) -> None:
    example, instance = EXAMPLES[number], read_instance(TOLD[number])
    for what, *of in instance.initial | instance.goal:
        if what == "on":
            x, y = (f"the {COLOUR_OF[block]} block" for block in of)
            assert f"{x} is on top of {y}" in example.problem
    problem = Problem(id="p", problem="?", answer=write_instance(instance))
    messages = chat("What now?", [example], kinds=kinds, pattern=pattern)
    assert task().verify(messages[1]["content"], problem).verdict == "correct"
    assert task().verify(example.answer, problem).verdict == "correct"


def test_an_example_shows_a_mistake_where_the_pattern_mends_one(
    patterns: dict[str, Pattern],
) -> None:
    ways = {name: [kind for kind, _ in lay_out(EXAMPLES[1], p)] for name, p in patterns.items()}
    assert "reflection" in ways["a"]
    assert "reclarify" in ways["d"]
    assert "double_check" in ways["c"]


def test_as_many_examples_as_the_config_says() -> None:
    assert list(task(shots=1).examples(PROBLEM)) == [EXAMPLES[0]]
    assert list(task(shots=0).examples(PROBLEM)) == []


def lines(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Problem]:
    return {problem.id: problem for problem in task(test_file=str(INSTANCES)).problems("test")}


@with_data
def test_every_reference_plan_is_right(benchmark: dict[str, Problem]) -> None:
    rows = lines(INSTANCES)
    assert len(rows) == len(benchmark) == 600
    for instance in rows:
        verdict = task().verify(instance["ground_truth_plan"], benchmark[instance["id"]])
        assert verdict.why == f"goal reached in {instance['ground_truth_length']} actions"


def relabelled(instance: Instance) -> set[tuple[frozenset[Any], frozenset[Any]]]:
    """(start, goal) under every naming of the blocks by the first letters."""
    found = set()
    for names in itertools.permutations("abcdef"[: len(instance.blocks)]):
        new = dict(zip(instance.blocks, names, strict=True))
        start, goal = (
            frozenset((what, *(new[block] for block in of)) for what, *of in facts)
            for facts in (instance.initial, instance.goal)
        )
        found.add((start, goal))
    return found


@with_data
def test_no_example_is_an_instance_of_the_benchmark(benchmark: dict[str, Problem]) -> None:
    instances = [read_instance(problem.answer) for problem in benchmark.values()]
    known = {(instance.initial, instance.goal) for instance in instances}
    for told in map(read_instance, TOLD):
        assert not relabelled(told) & known
    problems = {problem.problem for problem in benchmark.values()}
    assert not problems & {example.problem for example in EXAMPLES}


@with_data
def test_real_responses_get_their_known_verdicts(benchmark: dict[str, Problem]) -> None:
    rows = lines(DATA / "blocksworld_outputs" / "outputs.jsonl.gz")
    others = []
    for sample in rows:
        verdict = task().verify(sample["response"], benchmark[sample["instance_id"]])
        if (verdict.verdict == "correct") != sample["valid"]:
            others.append((sample["instance_id"], verdict.answer, sample["source_plan"]))
    assert len(rows) == 599
    # The source's extraction lost the first of two lines; the response is right.
    assert others == [("bw3-93", "(pick-up c) (stack c a)", ["(stack c a)"])]


@with_data
def test_source_plans_get_their_known_verdicts(benchmark: dict[str, Problem]) -> None:
    for sample in lines(DATA / "blocksworld_outputs" / "outputs.jsonl.gz"):
        actions = [tuple(action.strip("()").split()) for action in sample["source_plan"]]
        instance = read_instance(benchmark[sample["instance_id"]].answer)
        assert execute(actions, instance)[0] == sample["valid"]


@with_data
@pytest.mark.parametrize(
    ("file", "text", "count"), [("plans.jsonl", "output", 8), ("plans_real.jsonl", "response", 80)]
)
def test_calibration(file: str, text: str, count: int, benchmark: dict[str, Problem]) -> None:
    rows = lines(DATA / "calibration" / file)
    others = []
    for case in rows:
        verdict = task().verify(case[text], benchmark[case["instance_id"]])
        if (verdict.verdict == "correct") != case["expected_valid"]:
            others.append((case["instance_id"], case["tier"], verdict.why))
        if "expected_no_answer" in case:
            assert (verdict.verdict == "no_answer") == case["expected_no_answer"]
    assert len(rows) == count
    # A right list, and a breakdown of it, of which the source's extraction took another plan.
    right = [("bw-372", "policy", "goal reached in 6 actions")]
    assert others == (right if file == "plans_real.jsonl" else [])
