import json

import pytest

from marco.errors import UserError
from marco.reporting.results import collect, find_scores
from marco.reporting.samples import read_runs


def change(folder, **changes):
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_results_keep_the_order_of_the_folders(score):
    folders = [score("sft", 1, correct=80), score("dpo", correct=3), score("sft", 0, correct=81)]
    found = collect(folders)
    assert [(r.row, r.seed) for r in found] == [("sft", 1), ("dpo", 0), ("sft", 0)]
    assert found[1].tasks["arithmetic"].accuracy == 0.03


def test_a_student_that_no_recipe_made_is_a_row_by_its_name(score):
    folder = score("base", correct=1)
    change(folder, row=None, student="smollm2", title=None)
    assert (collect([folder])[0].row, collect([folder])[0].title) == ("smollm2", "smollm2")


def test_results_of_the_first_schema_are_read(score):
    folder = score("sft", correct=80)
    figures = json.loads((folder / "results.json").read_text())["tasks"]["arithmetic"]
    names = ("n", "confidence", "accuracy", "no_answer", "tokens_mean", "truncated")
    old = {k: figures[k] for k in (*names, "accuracy_interval", "no_answer_interval")}
    change(folder, schema=1, tasks={"arithmetic": old})
    scores = collect([folder])[0].tasks["arithmetic"]
    assert (scores.n, scores.intervals, scores.counted) == (100, "wilson", "tries")


def test_the_same_folder_twice_counts_once(score):
    folder = score("sft", correct=80)
    assert len(collect([folder, folder])) == 1


def test_two_scores_of_one_row_and_seed_are_refused_by_name(score, tmp_path):
    one = score("sft", correct=80)
    other = one.rename(tmp_path / "other")
    again = score("sft", correct=70)
    with pytest.raises(UserError, match=f"'sft', seed 0.*{other} and {again}"):
        collect([other, again])


def test_a_sweep_is_told_apart_by_what_differs(score, tmp_path):
    folders = []
    for rate in (1e-5, 2e-5):
        folder = score("sft", correct=80).rename(tmp_path / str(rate))
        settings = {"seed": 0, "trainer": {"sft": {"learning_rate": rate}, "epochs": 3}}
        manifest = {"schema": 1, "labels": {"settings": settings}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        folders.append(folder)
    name = "sft (trainer.sft.learning_rate={})"
    assert [r.row for r in collect(folders)] == [name.format(1e-5), name.format(2e-5)]
    assert [r.row for r in collect(folders[:1])] == ["sft"]


def test_the_same_settings_on_other_trees_are_told_apart_by_their_keys(score, tmp_path):
    folders = []
    for key in ("a" * 64, "b" * 64):
        folder = score("sft", correct=80).rename(tmp_path / key)
        manifest = {"schema": 1, "key": key, "labels": {"settings": {"resamples": 5}}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        folders.append(folder)
    assert [r.row for r in collect(folders)] == ["sft (key aaaaaaaa)", "sft (key bbbbbbbb)"]


def test_one_row_and_seed_may_have_its_tasks_in_two_folders(score):
    collect([score("sft", correct=80), score("sft", correct=8, task="gsm8k")])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema": 3}, "schema: Input should be 1 or 2"),
        ({"tasks": {}}, "tasks: .*at least 1 item"),
        ({"seed": "first"}, "seed: .*integer"),
    ],
)
def test_a_file_that_breaks_the_contract_is_named_with_its_field(score, changes, told):
    folder = score("sft", correct=80)
    change(folder, **changes)
    with pytest.raises(UserError, match=f"{folder}/results.json is no results file: {told}"):
        collect([folder])


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("accuracy", 80.0, "less than or equal to 1"),
        ("accuracy", float("nan"), "finite number"),
        ("no_answer", 0.3, "accuracy . no_answer is more than 1"),
        ("n", 0, "greater than 0"),
    ],
)
def test_figures_that_cannot_be_are_refused(score, field, value, told):
    folder = score("sft", correct=80)
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    tasks["arithmetic"][field] = value
    change(folder, tasks=tasks)
    with pytest.raises(UserError, match=told):
        collect([folder])


def test_an_official_metric_is_a_column_of_its_own(score):
    folder = score("sft", correct=60, silent=30, keeps=True)
    tasks = json.loads((folder / "results.json").read_text())["tasks"]
    official = tasks["arithmetic"] | {"metric": "official", "accuracy": 0.8}
    change(folder, tasks={**tasks, "arithmetic zh": official})
    [result] = collect([folder])
    assert list(result.tasks) == ["arithmetic", "arithmetic zh"]
    assert result.tasks["arithmetic zh"].accuracy == 0.8  # instructions are followed, not prompts
    assert result.tasks["arithmetic"].no_answer_kind == "wilson"


def test_an_official_metric_is_read_with_what_it_counts(talk_score):
    [result] = collect([talk_score("sft", english="+-", chinese="+---")])
    runs = read_runs(result)
    assert list(runs) == ["multi_if", "multi_if official", "multi_if zh", "multi_if en"]
    assert [len(run.prompts) for run in runs.values()] == [6, 6, 4, 2]
    counts = {name: run.counts and run.counts.official for name, run in runs.items()}
    assert counts == {
        "multi_if": None,
        "multi_if official": pytest.approx((1 / 2 + 1 / 4) / 2),
        "multi_if en": pytest.approx(1 / 2),
        "multi_if zh": pytest.approx(1 / 4),
    }
    assert {n: s.accuracy for n, s in result.tasks.items()} == counts | {"multi_if": 2 / 6}


def test_half_a_file_and_no_file_are_told(score, tmp_path):
    folder = score("sft", correct=80)
    (folder / "results.json").write_text('{"schema": 1, "stu')
    with pytest.raises(UserError, match="Invalid JSON"):
        collect([folder])
    with pytest.raises(UserError, match="cannot read .*No such file"):
        collect([tmp_path / "nowhere"])


def test_scores_are_found_below_a_folder(score, tmp_path):
    folders = {score("sft", correct=80), score("dpo", correct=3)}
    assert set(find_scores([tmp_path / "scores"])) == folders
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no results.json in .*empty"):
        find_scores([tmp_path / "empty"])
    with pytest.raises(UserError, match="not a folder"):
        find_scores([tmp_path / "nowhere"])
