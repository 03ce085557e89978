"""What is part of a stage's key, and what is not."""

import json
from functools import cache
from typing import Any

import datasets
import pytest

from marco import pipeline, work
from marco.config import Config
from marco.errors import UserError
from marco.search.tree import Node, Tree, write_trees
from marco.tasks.registry import make_task

from .test_config import checked

STAGES = {
    "trees": pipeline.trees,
    "pairs": pipeline.pair_data,
    "sft": pipeline.sft_student,
    "reference": lambda config: pipeline.reference(
        config, pipeline.sft_student(config), pipeline.pair_data(config)
    ),
    "student": pipeline.student,
    "scores": lambda config: pipeline.scores(config, pipeline.student(config)),
}
ALL = set(STAGES)


@cache
def as_it_comes() -> Config:
    return checked()


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("task.test=50", {"scores"}),
        ("task.train=50", ALL),
        ("search_seed=1", ALL),
        ("search.c=2.0", ALL),
        ("engine.max_num_seqs=8", set()),
        ("decoding.tensor_parallel=2", set()),
        ("cluster.threads=1", set()),
        ("logger=none", set()),
        ("length.dpo.bucket=longest", {"pairs", "reference", "student", "scores"}),
        ("loss.alpha=0.5", {"student", "scores"}),
        ("loss.mask=none", {"student", "scores"}),
        ("loss=simpo", {"student", "scores"}),
        ("trainer.preference.learning_rate=1e-7", {"student", "scores"}),
        ("trainer.sft.learning_rate=1e-7", {"sft", "reference", "student", "scores"}),
        ("seed=1", {"sft", "reference", "student", "scores"}),
        ("decoding.max_tokens=7", {"scores"}),
        ("task.response_tokens=7", {"scores"}),
        ("split=validation", {"scores"}),
        ("decoding=mcts", {"scores"}),
        ("resamples=7", {"scores"}),
        ("error_classes.reflection.run=99", {"scores"}),
        ("data.drop_error_classes=[content_repetition]", ALL - {"trees"}),
    ],
)
def test_an_override_makes_anew_what_depends_on_it_and_nothing_else(override, changed):
    plain, other = as_it_comes(), checked(override)
    assert {name for name, s in STAGES.items() if s(plain).key != s(other).key} == changed


@pytest.fixture(scope="module")
def evaluation() -> Config:
    return checked("tasks=[arithmetic,math,aime]", name="evaluate")


@pytest.mark.parametrize(
    ("given", "task", "change", "counts"),
    [
        ({}, "arithmetic", {"train": 50}, False),
        ({}, "arithmetic", {"validation": 50}, False),
        ({}, "arithmetic", {"shots": 1}, False),
        ({}, "arithmetic", {"test": 50}, True),
        ({}, "arithmetic", {"problem_seed": 1}, True),
        ({}, "math", {"test_hub": "x"}, True),
        ({}, "math", {"train_hub": "x"}, False),
        ({}, "aime", {"years": [2024]}, True),
        ({}, "aime", {"response_tokens": 7}, True),
        ({"split": "validation"}, "arithmetic", {"validation": 50}, True),
        ({"split": "validation"}, "arithmetic", {"test": 50}, False),
        ({"split": "validation"}, "math", {"train_hub": "x"}, True),
        ({"split": "validation"}, "aime", {"years": [2024]}, False),
        ({"split": "train"}, "arithmetic", {"train": 50}, True),
        ({"decoding": {"method": "mcts", "temperature": 1}}, "math", {"response_tokens": 7}, False),
        ({"decoding": {"max_tokens": 9}}, "math", {"response_tokens": 7}, False),
    ],
)
def test_scores_are_of_the_problems_that_are_evaluated_and_of_no_others(
    evaluation: Config, given: dict[str, Any], task: str, change: dict[str, Any], counts: bool
) -> None:
    decoding = evaluation.decoding.model_copy(update=given.get("decoding"))
    config = evaluation.model_copy(update=given | {"decoding": decoding})
    other = config.model_copy(
        update={"task": config.task.model_copy(update=change)}
        if task == config.task.name
        else {"task_overrides": {task: change}}
    )
    stages = [pipeline.scores(one, None) for one in (config, other)]
    assert (stages[0].key != stages[1].key) == counts
    assert stages[0].labels["tasks"] != stages[1].labels["tasks"]  # there they are told whole


def test_test_problems_do_not_depend_on_the_sizes_of_other_splits():
    for name in ("arithmetic", "letter_count"):
        plain, other = (
            make_task(checked(f"task={name}", *more).task).problems("test")
            for more in ([], ["task.train=9", "task.validation=7"])
        )
        assert plain == other


def test_files_of_other_splits_have_no_part_in_scores(tmp_path):
    files = {name: tmp_path / f"{name}.jsonl" for name in ("train", "test")}
    for file in files.values():
        file.write_text("one")
    given = [f"task.{name}_file={file}" for name, file in files.items()]
    stage = pipeline.scores(checked("task=gsm8k", *given, name="evaluate"), None)
    assert stage.inputs == {"gsm8k.test_file": files["test"]}


def test_annotations_count_by_their_content(tmp_path):
    path = tmp_path / "annotations.jsonl"
    override = f"data.annotations={path}"

    def keys(*overrides):
        return {name: stage(checked(*overrides)).key for name, stage in STAGES.items()}

    with pytest.raises(UserError, match="annotations.jsonl does not exist"):
        keys(override)
    path.write_text("one")
    first, plain = keys(override), keys()
    path.write_text("two")
    second = keys(override)
    assert first["trees"] == second["trees"] == plain["trees"]
    others = ALL - {"trees"}
    assert all(len({first[name], second[name], plain[name]}) == 3 for name in others)
    with pytest.raises(UserError, match="annotations are of trees"):
        checked(override, "data=sky_t1")


def test_a_local_model_counts_by_its_content(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("one")
    overrides = ("student=folder", f"student.model={model}")
    first = {name: stage(checked(*overrides)).key for name, stage in STAGES.items()}
    (model / "weights").write_text("two")
    second = {name: stage(checked(*overrides)).key for name, stage in STAGES.items()}
    assert {name for name in STAGES if first[name] != second[name]} == ALL - {"trees"}


def test_plain_sampling_spends_what_the_rows_search_has_spent():
    plain = pipeline.trees(checked("search=plain", "search.node_tokens=80"))
    searched = pipeline.trees(checked("search=distinct", "search.node_tokens=80"))
    assert isinstance(plain, pipeline.Stage) and isinstance(searched, pipeline.Stage)
    assert list(plain.inputs) == ["budgets"] and plain.key != searched.key
    budgets = plain.inputs["budgets"]
    assert isinstance(budgets, pipeline.Stage) and budgets.key == searched.key


def test_training_problems_of_a_file_count_by_their_content(tmp_path):
    file = tmp_path / "train.jsonl"
    keys = []
    for text in ("one", "two"):
        file.write_text(text)
        keys.append(pipeline.trees(checked("task=gsm8k", f"task.train_file={file}")).key)
    assert keys[0] != keys[1]


def test_files_of_problems_and_responses_count_by_their_content(tmp_path):
    problems, responses = tmp_path / "p.jsonl", tmp_path / "r.jsonl"
    config = checked(f"problems={problems}", f"responses={responses}", name="evaluate")
    keys = set()
    for written in ("one", "one", "two", "three"):
        (responses if written == "three" else problems).write_text(written)
        if written != "three":
            responses.touch()
        keys.add(pipeline.grades(config).key)
    assert len(keys) == 3
    two = config.model_copy(update={"tasks": ["arithmetic", "gsm8k"]})
    for stage in (pipeline.grades, lambda config: pipeline.scores(config, None)):
        with pytest.raises(UserError, match="one task"):
            stage(two)


def test_overrides_of_other_tasks_reach_them_or_are_refused():
    tasks = ("tasks=[arithmetic,math]", "+task_overrides.math.grading.limit_s=9")
    stage = pipeline.scores(checked(*tasks, name="evaluate"), None)
    math = stage.config["tasks"][1]
    assert math["grading"]["limit_s"] == 9 and math["grading"]["processes"] == 2
    plain = pipeline.scores(checked(tasks[0], name="evaluate"), None)
    assert stage.key != plain.key  # a time-out is a verdict
    for override, told in {
        "+task_overrides.mth.test_file=x": "did you mean `math`",
        "+task_overrides.arithmetic.test=3": "task.<key>",
        "+task_overrides.math.tst=3": "task_overrides.math: tst",
    }.items():
        with pytest.raises(UserError, match=told):
            pipeline.scores(checked(tasks[0], override, name="evaluate"), None)


def test_a_file_of_sky_t1_reaches_the_row_of_a_table_that_learns_it(tmp_path, monkeypatch):
    (tmp_path / "set.jsonl").write_text("{}\n")
    monkeypatch.setenv("SKY_T1", str(tmp_path / "set.jsonl"))
    config = checked("experiments=sft_data", "recipe=sft_sky_t1_short")
    stage = pipeline.sft_data(config)
    assert not isinstance(stage, str) and stage.inputs == {"file": tmp_path / "set.jsonl"}
    assert stage.config["published"]["rows"] == 240
    assert checked("experiments=sft_data", "recipe=sft").data.published is None


def test_a_published_set_takes_the_place_of_chains_from_trees(tmp_path, embedded_folder):
    file = tmp_path / "set.jsonl"
    turns = [{"from": "user", "value": "1 + 1?"}, {"from": "assistant", "value": "So 2."}]
    file.write_text(json.dumps({"conversations": turns}) + "\n")
    config = checked("recipe=sft", "data=sky_t1", f"data.published.file={file}")
    stage = pipeline.sft_data(config)
    assert not isinstance(stage, str) and stage.inputs == {"file": file}
    out = tmp_path / "dataset" / "out"
    out.mkdir(parents=True)
    (tmp_path / "models").symlink_to(embedded_folder.parent)
    work.build_dataset(
        work.Order(
            kind="dataset",
            key=stage.key,
            config=stage.config,
            inputs={"file": file},
            labels={},
            cluster={},
            out=out,
        )
    )
    [row] = datasets.load_from_disk(str(out / "dataset"))
    assert row["prompt"] == [{"role": "user", "content": "1 + 1?"}]
    assert row["completion"] == [{"role": "assistant", "content": "So 2."}]
    pipeline.check_contamination(config)
    problem = make_task(config.task).problems("test")[0].problem
    turns[0]["value"] = problem
    file.write_text(json.dumps({"conversations": turns}) + "\n")
    with pytest.raises(UserError, match="arithmetic-test-0"):
        pipeline.check_contamination(config)


def test_trees_of_a_test_problem_are_refused(tmp_path):
    config = checked()
    test = make_task(config.task).problems("test")[3]
    tree = Tree(
        id="mine",
        task="arithmetic",
        problem=test.problem.upper(),
        gold=test.answer,
        pattern="a",
        models={},
        seed=0,
        status="unsolved",
        usage={},
        nodes=[Node(id=0, parent=None, kind="prompt", model=None, text=test.problem)],
    )
    write_trees(tmp_path / "trees.jsonl", [tree])
    with pytest.raises(UserError, match=r"arithmetic-test-3 \(= mine\)"):
        pipeline.check_contamination(checked(f"trees={tmp_path}"))
    pipeline.check_contamination(config)
