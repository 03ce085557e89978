"""A row's log, by the logger that writes plain files."""

import csv
import json

import pytest
from filelock import FileLock

from marco.reporting.allowlist import Redactor
from marco.reporting.loggers import csv_files
from marco.reporting.loggers.guarded import GuardedLogger
from marco.reporting.loggers.protocol import STEP
from marco.reporting.row_log import order_of
from marco.reporting.row_watch import watch
from marco.stages import Stage

from .logged_rows import below, config_of, finish, finish_all, log, scores_of, train


def runs(outputs):
    """The runs' folders by their names."""
    found = {}
    for path in sorted(outputs.glob("csv/rows/*/run.json")):
        found[json.loads(path.read_text())["name"]] = path.parent
    return found


def facts(folder):
    return json.loads((folder / "run.json").read_text())


def points(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [tuple(line.values()) for line in csv.DictReader(file)]


def student_of(config) -> Stage:
    return scores_of(config).inputs["student"]


def test_every_stage_has_a_run_and_the_rows_is_that_of_its_scores(tmp_path):
    config = config_of(tmp_path)
    finish_all(config)
    log(config)
    kinds = {name: facts(folder)["job_type"] for name, folder in runs(tmp_path).items()}
    assert sorted(kinds.values()) == ["dataset", "dataset", "scores", "student", "student", "trees"]
    assert kinds["cdpo-seed0"] == "scores"
    row = facts(runs(tmp_path)["cdpo-seed0"])
    assert row["tags"] == ["rows", "cdpo", "smollm2_135m"] and row["group"] == "rows"
    assert row["config"]["loss"]["preference"]["epsilon"] == 0.1
    assert row["config"]["row"] == "cdpo" and row["state"] == "finished"
    sft = facts(runs(tmp_path)["sft-smollm2_135m-s0"])
    assert "SFT" in sft["tags"] and sft["config"]["loss"]["preference"] is None


def test_the_rows_run_holds_figures_curves_and_samples(tmp_path):
    config = config_of(tmp_path, "logger.samples=6")
    finish_all(config)
    log(config)
    folder = runs(tmp_path)["cdpo-seed0"]
    figures = json.loads((folder / "summary.json").read_text())
    assert figures["arithmetic/accuracy"] == 0.5 and figures["arithmetic/no_answer"] == 0.25
    assert figures["arithmetic/accuracy_interval_low"] < 0.5
    assert figures["train/last/margin_length_correlation"] == -0.25
    # Each problem has one right try of two: with both tries at hand all are solved.
    tries = [point for point in points(folder) if point[0] == "arithmetic/tries"]
    assert tries == [
        ("arithmetic/tries", "1", "arithmetic/test_at_tries", "0.5"),
        ("arithmetic/tries", "2", "arithmetic/test_at_tries", "1.0"),
    ]
    # A try takes 5 to 12 tokens, 8.36 in the mean of 100 problems.
    spent = [point for point in points(folder) if point[0] == "arithmetic/tokens_spent"]
    assert [point[1:] for point in spent] == [
        ("8", "arithmetic/test_at_tokens", "0.5"),
        ("17", "arithmetic/test_at_tokens", "1.0"),
    ]
    lengths = [point for point in points(folder) if point[0] == "arithmetic/response_tokens"]
    assert all(point[2] == "arithmetic/response_density" for point in lengths)
    assert [int(point[1]) for point in lengths] == list(range(14))  # up to the end of the last bin
    assert sum(float(point[3]) for point in lengths) == pytest.approx(1, abs=0.1)
    # Twenty pairs, two to a tenth: the first of -10 and -9 tokens, -0.95 and -0.85 nats.
    margins = [point for point in points(folder) if point[0] == "pairs/length_difference"]
    assert len(margins) == 10
    assert margins[0][1:3] == ("-10", "pairs/margin") and float(margins[0][3]) == pytest.approx(
        -0.9
    )
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 6
    assert {"prompt", "response", "verdict", "error_classes"} <= set(samples[0])


def test_where_tokens_are_not_known_all_else_is_logged(tmp_path):
    config = config_of(tmp_path)
    finish_all(config)
    path = scores_of(config).folder(tmp_path) / "samples.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()]
    unknown = [json.dumps(row | {"tokens": None, "spent": None}) + "\n" for row in told]
    path.write_text("".join(unknown))
    log(config)
    folder = runs(tmp_path)["cdpo-seed0"]
    axes = {point[0] for point in points(folder) if point[0].startswith("arithmetic/")}
    assert axes == {"arithmetic/tries"}
    assert json.loads((folder / "summary.json").read_text())["arithmetic/accuracy"] == 0.5


def test_samples_are_of_the_same_problems_for_every_row(tmp_path):
    drawn = []
    for seed in (0, 1):
        config = config_of(tmp_path, f"seed={seed}", "logger.samples=6")
        finish_all(config, text=f"by {seed}")
        log(config)
        text = (runs(tmp_path)[f"cdpo-seed{seed}"] / "samples.jsonl").read_text()
        drawn.append([(s["id"], s["try"]) for s in map(json.loads, text.splitlines())])
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 6


def test_the_lineage_leads_from_scores_to_trees_by_keys(tmp_path):
    config = config_of(tmp_path)
    finish_all(config)
    log(config)
    made = {}
    for folder in runs(tmp_path).values():
        told = facts(folder)
        made[told["made"]["key"]] = (told["made"]["kind"], {one["key"] for one in told["from"]})
    stages = {stage.key: stage for stage in below(scores_of(config)) if stage.kind != "reference"}
    assert set(made) == set(stages)
    for key, (kind, inputs) in made.items():
        assert kind == stages[key].kind
        known = {v.key for v in stages[key].inputs.values() if v.kind != "reference"}
        assert inputs == known
    seen, front = set(), {scores_of(config).key}
    while front:
        seen |= front
        front = set().union(*(made[key][1] for key in front)) - seen
    assert {made[key][0] for key in seen} == {"scores", "student", "dataset", "trees"}


def test_trees_are_shown_as_pages(tmp_path):
    config = config_of(tmp_path, "logger.trees=3")
    finish_all(config, text="<script>alert(1)</script>")
    log(config)
    shown = {facts(folder)["job_type"]: folder for folder in runs(tmp_path).values()}
    for kind in ("trees", "scores"):  # the latter is the row's
        pages = sorted((shown[kind] / "trees").glob("*.html"))
        assert len(pages) == 3
        assert all("<script>alert" not in page.read_text() for page in pages)
        figures = json.loads((shown[kind] / "summary.json").read_text())
        assert figures["trees/n"] == 20 and figures["trees/chains/correct"] == 20


def test_a_training_is_followed_while_it_goes_on_by_its_run_and_the_rows(tmp_path):
    config = config_of(tmp_path)
    finish_all(config, until="student")
    student, told = student_of(config), []

    def shown():
        for name in (student.slug, "cdpo-seed0"):
            folder = runs(tmp_path)[name]
            steps = [p[1] for p in points(folder) if p[:3:2] == (STEP, "train/loss")]
            told.append((facts(folder)["state"], steps))

    def ending(wait_s):
        if not told:
            train(student, tmp_path, 1, half=True)
            told.append(None)
        elif len(told) == 1:
            shown()
            train(student, tmp_path, 3)
        elif len(told) == 3:
            shown()
            finish_all(config)
        else:
            return ""
        return None

    logger = GuardedLogger(csv_files.CsvLogger, Redactor({}))
    watch(order_of(config, scores_of(config)), logger, ending)
    shown()
    assert told[1:3] == [("running", ["1"])] * 2
    assert told[3:5] == [("running", ["1", "2", "3"])] * 2
    assert told[5:7] == [("finished", ["1", "2", "3", "4"])] * 2


def test_a_row_that_fails_is_closed_as_failed_and_goes_on_in_the_same_runs(tmp_path):
    config = config_of(tmp_path)
    finish_all(config, until="student")
    train(student_of(config), tmp_path, 2)
    log(config, None, "student sft did not finish (ended by SIGKILL)")
    before = runs(tmp_path)
    assert facts(before["cdpo-seed0"])["state"] == "failed"
    assert facts(before[student_of(config).slug])["state"] == "failed"
    assert "SIGKILL" in (before["cdpo-seed0"] / "summary.json").read_text()
    ids = {name: facts(folder)["id"] for name, folder in before.items()}
    finish_all(config)
    log(config)
    after = runs(tmp_path)
    assert {facts(folder)["state"] for folder in after.values()} == {"finished"}
    assert ids.items() <= {name: facts(folder)["id"] for name, folder in after.items()}.items()
    steps = [p[1] for p in points(after[student_of(config).slug]) if p[2] == "train/loss"]
    assert steps == ["1", "2", "3", "4"]


def test_what_is_logged_is_not_logged_again(tmp_path, monkeypatch):
    config = config_of(tmp_path)
    finish_all(config)
    log(config)
    monkeypatch.setattr(csv_files.CsvLogger, "start", None)  # it would be told, and fail
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("csv/rows/*/run.json")}
    log(config)
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_rows_share_the_runs_of_the_stages_that_they_share(tmp_path):
    for recipe in ("cdpo", "joint"):
        config = config_of(tmp_path, f"recipe={recipe}")
        finish_all(config)
        log(config)
    kinds = [facts(folder)["job_type"] for folder in runs(tmp_path).values()]
    assert sorted(kinds) == ["dataset"] * 2 + ["scores"] * 2 + ["student"] * 3 + ["trees"]


def test_a_run_that_another_process_logs_is_left_to_it(tmp_path):
    config = config_of(tmp_path)
    finish_all(config)
    log(config)
    folder = runs(tmp_path)["sft-smollm2_135m-s0"]
    (folder / "logged.json").unlink()
    with FileLock(folder.parent / f".{folder.name}.lock"):
        log(config)
        assert not (folder / "logged.json").exists()
    log(config)
    assert (folder / "logged.json").exists()


def test_a_stage_that_was_given_as_a_folder_is_logged_with_what_it_stands_on(tmp_path):
    made = config_of(tmp_path)
    finish_all(made, until="scores")
    folder = student_of(made).folder(tmp_path)
    config = config_of(tmp_path, "recipe=base", "student=folder", f"student.model={folder}")
    finish(scores_of(config), tmp_path)
    log(config)
    kinds = {facts(folder)["job_type"] for folder in runs(tmp_path).values()}
    assert kinds == {"scores", "student", "dataset", "trees"}
    row = facts(runs(tmp_path)["base-seed0"])
    assert [one["key"] for one in row["from"]] == [student_of(made).key]


@pytest.mark.parametrize("broken", ["log", "samples", "pages", "lineage", "summary", "close"])
def test_no_failure_of_a_logger_ends_the_watching(tmp_path, monkeypatch, capsys, broken):
    def fail(*_, **__):
        raise OSError("disk full\nand a long tail")

    config = config_of(tmp_path)
    finish_all(config)
    with monkeypatch.context() as patch:
        patch.setattr(csv_files.CsvRun, broken, fail)
        log(config)
    told = capsys.readouterr().out
    assert "OSError: disk full" in told and "tail" not in told
    assert not (runs(tmp_path)["cdpo-seed0"] / "logged.json").exists() or broken == "pages"
    log(config)  # what was not whole is logged again
    assert {facts(folder)["state"] for folder in runs(tmp_path).values()} == {"finished"}


def test_a_logger_that_cannot_start_is_told_once(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ConnectionError("no route")

    config = config_of(tmp_path)
    finish_all(config)
    monkeypatch.setattr(csv_files, "CsvLogger", fail)
    log(config, None, None, "")
    assert capsys.readouterr().out.count("no route") == 1


def test_a_broken_file_of_a_stage_breaks_its_run_alone(tmp_path, capsys):
    config = config_of(tmp_path)
    finish_all(config)
    (student_of(config).folder(tmp_path) / "metrics.csv").write_text("step,loss\n1,?\n")
    log(config)
    assert "could not read the training: ValueError" in capsys.readouterr().out
    assert facts(runs(tmp_path)["cdpo-seed0"])["state"] == "finished"
