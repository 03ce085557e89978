"""The table of an experiment: which rows stand in it, whatever ran before."""

import json
import shutil

import pytest

from marco import experiment
from marco.errors import UserError
from marco.evaluation.metrics import summarise

from .test_config import checked

OVERRIDES = ["experiments=step_by_step"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a row whose stages are not made: its scores have as many correct ones as told."""

    def run(*overrides, correct=None):
        config = checked(*OVERRIDES, "logger=none", *overrides)
        config = config.model_copy(update={"outputs": tmp_path})

        def materialise(stage, outputs, *, cluster):
            if correct is None:
                raise UserError("the student did not finish")
            folder = stage.folder(outputs)
            folder.mkdir(parents=True, exist_ok=True)
            verdicts = ["correct"] * correct + ["wrong"] * (100 - correct)
            samples = [
                {"id": i, "verdict": v, "tokens": 5, "finish": "stop"}
                for i, v in enumerate(verdicts)
            ]
            figures = summarise(
                samples, confidence=0.95, test_at=[], majority=False, resamples=10, seed=0
            )
            results = {
                "schema": 1,
                "student": "tiny",
                "row": stage.config["row"],
                "title": stage.labels["title"],
                "seed": config.seed,
                "tasks": {"arithmetic": figures},
            }
            (folder / "results.json").write_text(json.dumps(results))
            return folder

        monkeypatch.setattr(experiment, "materialise", materialise)
        return experiment.run_row(config, overrides=[*OVERRIDES, *overrides])

    return run


def line(tmp_path, title):
    (table,) = (tmp_path / "table").glob("*/table.md")
    return next(row for row in table.read_text().splitlines() if row.startswith(f"| {title} |"))


def test_seeds_of_a_row_are_averaged_and_other_rows_wait(run, tmp_path):
    for seed, correct in enumerate((40, 50, 60)):
        run("recipe=sft", f"seed={seed}", correct=correct)
    assert "100 × 3 | 50.0 [" in line(tmp_path, "SFT")
    assert "pending" in line(tmp_path, "+ DPO")


def test_seeds_of_other_settings_are_not_averaged(run, tmp_path, monkeypatch):
    run("recipe=sft", "seed=0", correct=40)
    run("recipe=dpo", "seed=0", correct=30)
    monkeypatch.setitem(experiment.pipeline.REVISIONS, "student", 99)
    run("recipe=sft", "seed=1", correct=60)
    assert "100 × 1 | 60.0 [" in line(tmp_path, "SFT")
    assert "30.0 [" in line(tmp_path, "+ DPO")


def test_scores_that_were_deleted_are_pending_again(run, tmp_path):
    shutil.rmtree(run("recipe=sft", correct=40))
    run("recipe=dpo", correct=30)
    assert "pending" in line(tmp_path, "SFT")
    assert "30.0 [" in line(tmp_path, "+ DPO")


def test_a_row_that_fails_is_told_in_the_table_and_to_the_caller(run, tmp_path):
    run("recipe=sft", correct=40)
    with pytest.raises(UserError, match="did not finish"):
        run("recipe=dpo")
    assert "failed" in line(tmp_path, "+ DPO") and "40.0 [" in line(tmp_path, "SFT")
    run("recipe=dpo", correct=30)
    assert "30.0 [" in line(tmp_path, "+ DPO")


def test_a_row_is_logged_once_per_experiment(tmp_path, monkeypatch):
    from marco.reporting import row_log

    logged = []

    class FakeRun:
        def __init__(self, config, *, folder, **names):
            folder.mkdir(parents=True)
            logged.append((names["experiment"], names["row"]))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def log(self, *_, **__):
            pass

        def summary(self, *_):
            pass

    monkeypatch.setattr(row_log, "Run", FakeRun)
    scores = tmp_path / "scores" / "sft-1"
    scores.mkdir(parents=True)
    (scores / "results.json").write_text('{"tasks": {}}')
    config = checked().model_copy(update={"outputs": tmp_path})
    for name in ("alone", "alone", "table"):
        row_log.log_row(config, experiment=name, row="sft", scores=scores, student=None)
    assert logged == [("alone", "sft"), ("table", "sft")]
