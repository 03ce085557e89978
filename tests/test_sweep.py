"""The rows of a table: which stand in it, whatever ran, failed or was killed before."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from marco import experiment, sweep
from marco.cli import Job
from marco.config import ROOT
from marco.errors import UserError
from marco.evaluation.metrics import summarise
from marco.reporting.__main__ import main
from marco.reporting.figures.drawn import draw_figures

from .test_config import checked

OVERRIDES = ("experiments=step_by_step",)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a row whose stages are not made: its scores have as many correct ones as told."""
    monkeypatch.setattr(sweep, "_apart", experiment.make_row)
    monkeypatch.setattr("marco.reporting.table.picture", lambda *_, **__: b"")
    monkeypatch.setattr("marco.reporting.table.draw_figures", lambda *_: ({}, {}))

    def run(*overrides, correct=None, is_sweep=True):
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
                "row": stage.labels["row"],
                "title": stage.labels["title"],
                "seed": config.seed,
                "tasks": {"arithmetic": figures},
            }
            (folder / "results.json").write_text(json.dumps(results))
            manifest = {
                "schema": 1,
                "stage": "scores",
                "key": stage.key,
                "inputs": {},
                "labels": {},
            }
            (folder / "manifest.json").write_text(json.dumps(manifest | {"seconds": 1.0}))
            return folder

        monkeypatch.setattr(experiment, "materialise", materialise)
        asked = (*OVERRIDES, "logger=none", *overrides)
        told = {"row": "${recipe.name}", "is_sweep": is_sweep, "folder": tmp_path / ".job"}
        told["folder"].mkdir(exist_ok=True)
        try:
            return sweep.run_row(config, Job(overrides=asked, **told))
        finally:
            sweep.show_tables(told["folder"])

    return run


def line(tmp_path, title):
    (table,) = (tmp_path / "table").glob("*/table.md")
    lines = table.read_text().replace("**", "").splitlines()
    return next(row for row in lines if row.startswith(f"| {title} |"))


def test_seeds_of_a_row_are_averaged_and_other_rows_wait(run, tmp_path):
    for seed, correct in enumerate((40, 50, 60)):
        run("recipe=sft", f"seed={seed}", correct=correct)
    assert "100 × 3 | 50.0 [" in line(tmp_path, "SFT")
    assert "pending" in line(tmp_path, "+ DPO")


def test_seeds_of_other_settings_are_stale_and_not_averaged(run, tmp_path, monkeypatch):
    run("recipe=sft", "seed=0", correct=40)
    run("recipe=dpo", "seed=0", correct=30)
    monkeypatch.setitem(experiment.pipeline.REVISIONS, "student", 99)
    sweep.configs.cache_clear()
    sweep.current_key.cache_clear()
    run("recipe=sft", "seed=1", correct=60)
    assert "100 × 1 | 60.0 [" in line(tmp_path, "SFT")
    assert "30.0 [" in line(tmp_path, "+ DPO") and "stale" in line(tmp_path, "+ DPO")
    assert "stale" not in line(tmp_path, "SFT")
    sweep.configs.cache_clear()
    sweep.current_key.cache_clear()


def test_a_changed_file_that_asks_for_the_same_makes_nothing_stale(run, tmp_path, monkeypatch):
    run("recipe=sft", correct=40)
    monkeypatch.setattr(sweep, "configs", lambda: "changed")
    run("recipe=dpo", correct=30)
    assert "stale" not in line(tmp_path, "SFT")


def test_a_changed_input_file_makes_its_rows_stale(run, tmp_path):
    annotations = tmp_path / "annotations.jsonl"
    annotations.write_text("{}\n")
    told = (f"data.annotations={annotations}",)
    run("recipe=sft", *told, correct=40)
    run("recipe=dpo", *told, correct=30)
    assert "stale" not in line(tmp_path, "SFT")
    annotations.write_text("{}\n{}\n")
    sweep.state_of.cache_clear()
    sweep.current_key.cache_clear()
    run("recipe=dpo", *told, correct=30)
    assert "stale" in line(tmp_path, "SFT") and "stale" not in line(tmp_path, "+ DPO")


def test_a_row_is_not_stale_where_a_variable_names_another_file(run, tmp_path, monkeypatch):
    file = tmp_path / "sky t1, a part.jsonl"
    turns = [{"from": "user", "value": "1 + 1?"}, {"from": "assistant", "value": "2"}]
    file.write_text(json.dumps({"system": "", "conversations": turns}) + "\n")
    monkeypatch.setenv("SKY_T1", str(file))
    run("recipe=sft_sky_t1", "+table.rows.sft_sky_t1='Sky-T1'", correct=40)
    monkeypatch.delenv("SKY_T1")
    monkeypatch.setattr(sweep, "configs", lambda: "changed")
    sweep.current_key.cache_clear()
    run("recipe=dpo", "+table.rows.sft_sky_t1='Sky-T1'", correct=30)
    assert "40.0 [" in line(tmp_path, "Sky-T1") and "stale" not in line(tmp_path, "Sky-T1")
    without = sweep._told_by_environment(checked("recipe=sft_sky_t1"))  # of the hub's set
    assert without == ["data.published.file=null"]
    monkeypatch.setenv("SKY_T1", str(file))
    assert sweep.composed_config(("recipe=sft_sky_t1", *without)).data.published.file is None


def test_outputs_that_were_moved_have_their_tables_still(run, tmp_path, capsys):
    run("recipe=sft", correct=40)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for kind in ("table", "scores"):
        (tmp_path / kind).rename(moved / kind)
    (table,) = (moved / "table").iterdir()
    assert main([str(table)]) == 0
    assert "| SFT | 100 × 1 | 40.0 [" in capsys.readouterr().out
    assert main(["status", str(moved)]) == 0
    assert "1 of 8 rows finished" in capsys.readouterr().out


def test_how_a_row_runs_makes_no_other_table(run, tmp_path):
    run("recipe=sft", "cluster.threads=1", "trainer.devices=1", correct=40)
    run("recipe=dpo", "cluster.threads=2", correct=30)
    assert "40.0 [" in line(tmp_path, "SFT") and "30.0 [" in line(tmp_path, "+ DPO")
    run("recipe=dpo", "search_seed=1", correct=30)
    assert len(list((tmp_path / "table").iterdir())) == 2


def test_all_tables_are_written_anew_where_outputs_are_named(run, tmp_path, capsys):
    run("recipe=sft", correct=40)
    run("recipe=sft", "search_seed=1", correct=60)
    for folder in (tmp_path, tmp_path / "table"):
        capsys.readouterr()
        assert main([str(folder)]) == 0
        told = capsys.readouterr().out
        assert "| SFT | 100 × 1 | 40.0 [" in told and "| SFT | 100 × 1 | 60.0 [" in told
        assert told.count("\ntable: ") == 2
    assert main([str(tmp_path), "--name", "mine"]) == 0  # a table of all scores
    assert "### mine" in capsys.readouterr().out


def test_one_bad_table_leaves_the_others(run, tmp_path, capsys):
    scores = run("recipe=sft", correct=40)
    for name, text in (("a", "{}"), ("b", "[]"), ("z", "{")):
        (tmp_path / "table" / name).mkdir()
        (tmp_path / "table" / name / "sweep.json").write_text(text)
    capsys.readouterr()
    assert main([str(tmp_path), str(tmp_path / "table")]) == 2
    told = capsys.readouterr()
    assert told.out.count("| SFT | 100 × 1 | 40.0 [") == 1
    assert told.err.count("is no table of a sweep") == 3 and "lists no rows" in told.err
    assert main([str(tmp_path), str(scores)]) == 2
    assert f"{scores} holds no table of a sweep, as the others do" in capsys.readouterr().err


def test_what_cannot_be_done_with_a_table_is_told(run, tmp_path, capsys):
    run("recipe=sft", correct=40)
    (table,) = (tmp_path / "table").iterdir()
    assert main([str(table), "--out", str(tmp_path / "out")]) == 2
    assert "is the table of a sweep, which is written in its own" in capsys.readouterr().err
    (table / "table.md").unlink()
    (table / "table.md").mkdir()  # as where one may not write
    assert main([str(table)]) == 2
    assert f"error: {table}" in capsys.readouterr().err


def test_scores_that_were_deleted_are_pending_again(run, tmp_path):
    shutil.rmtree(run("recipe=sft", correct=40))
    run("recipe=dpo", correct=30)
    assert "pending" in line(tmp_path, "SFT")
    assert "30.0 [" in line(tmp_path, "+ DPO")


def test_half_way_the_command_draws_what_is_there_and_tells_what_is_not(
    run, tmp_path, monkeypatch, capsys
):
    run("recipe=sft", correct=40)
    monkeypatch.setattr("marco.reporting.table.draw_figures", draw_figures)
    (folder,) = (tmp_path / "table").iterdir()
    (folder / "margin_length.png").write_bytes(b"of scores that were deleted")
    assert main([str(folder)]) == 0
    told = capsys.readouterr().out
    assert "- Figure margin_length is left out: no row's student has a pairs.csv" in told
    assert "Figure no_answer" not in told and "| SFT | 100 × 1 | 40.0 [" in told
    drawn = {path.name for path in folder.iterdir() if path.suffix in (".png", ".svg")}
    assert drawn == {"table.png", "table.svg", "no_answer.png", "no_answer.svg"}
    assert (folder / "no_answer.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_without_any_result_stays_one(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("marco.reporting.table.draw_figures", draw_figures)
    with pytest.raises(UserError, match="did not finish"):
        run("recipe=sft")
    (folder,) = (tmp_path / "table").iterdir()
    spec = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(spec | {"figures": ["sweep", "error_classes"]}))
    (folder / "error_classes.csv").write_text("of scores that were deleted")
    monkeypatch.chdir(folder)
    for _ in range(2):  # from within it, too
        assert main(["."]) == 0
        assert "failed (seed 0): the student did not finish" in capsys.readouterr().out
    assert (folder / "sweep.json").is_file() and not (folder / "error_classes.csv").exists()


def test_files_that_are_gone_make_nothing_stale(run, tmp_path):
    annotations = tmp_path / "annotations.jsonl"
    annotations.write_text("{}\n")
    run("recipe=sft", f"data.annotations={annotations}", correct=40)
    annotations.unlink()
    sweep.state_of.cache_clear()
    (folder,) = (tmp_path / "table").iterdir()
    assert "stale" not in sweep.tabulate(folder)


def test_status_tells_a_row_with_a_current_seed_as_finished(run, tmp_path, monkeypatch, capsys):
    run("recipe=sft", "seed=0", correct=40)
    run("recipe=dpo", "seed=0", correct=40)
    monkeypatch.setitem(experiment.pipeline.REVISIONS, "student", 99)
    for cached in (sweep.configs, sweep.current_key):
        cached.cache_clear()
    run("recipe=sft", "seed=1", correct=60)
    assert main(["status", str(tmp_path)]) == 0
    assert "1 of 8 rows finished, 1 stale" in capsys.readouterr().out
    for cached in (sweep.configs, sweep.current_key):
        cached.cache_clear()


def test_a_row_that_fails_is_told_and_tried_again_where_that_is_asked(run, tmp_path):
    run("recipe=sft", correct=40)
    with pytest.raises(UserError, match="did not finish"):
        run("recipe=dpo")
    assert "failed (seed 0): the student did not finish" in line(tmp_path, "+ DPO")
    assert "40.0 [" in line(tmp_path, "SFT")
    with pytest.raises(UserError, match=r"failed before: .* \(retry=failed tries it again\)"):
        run("recipe=dpo", correct=30)
    run("recipe=dpo", "retry=failed", correct=30)
    assert "30.0 [" in line(tmp_path, "+ DPO") and "failed" not in line(tmp_path, "+ DPO")


def test_a_row_that_failed_is_run_when_it_is_asked_for_alone(run, tmp_path):
    with pytest.raises(UserError, match="did not finish"):
        run("recipe=dpo")
    run("recipe=dpo", correct=30, is_sweep=False)
    assert "30.0 [" in line(tmp_path, "+ DPO")


def test_a_row_that_failed_and_was_made_elsewhere_has_not_failed(run, tmp_path):
    with pytest.raises(UserError, match="did not finish"):
        run("recipe=dpo")
    (record,) = tmp_path.glob("table/*/rows/*.json")
    failed = record.read_text()
    run("recipe=dpo", correct=30, is_sweep=False)
    record.write_text(failed)  # as by another who had tried at the same time
    run("recipe=dpo", correct=30)
    assert "30.0 [" in line(tmp_path, "+ DPO")
    record.write_text(failed)
    run("recipe=sft", correct=40)
    assert "30.0 [" in line(tmp_path, "+ DPO") and "failed" not in line(tmp_path, "+ DPO")


ALL = ("recipe=sft,dpo", "seed=0,1,2,3,4,5,6,7,8,9")


def cheap_train(
    outputs: Path, *overrides: str, poison: str = "", rows: tuple[str, ...] = ALL
) -> list[str]:
    """The command of a sweep, of 20 rows, whose stages are those of tests/cheap_stages.py."""
    common = ("experiments=step_by_step", "logger=none", f"outputs={outputs}")
    environment = ("env", f"MARCO_TEST_POISON={poison}")
    return [*environment, sys.executable, "-m", "tests.cheap_train", *common, *rows, *overrides]


@pytest.mark.slow
def test_20_rows_of_which_3_fail_survive_10_kills(tmp_path):
    """Every good row is finished, no finished stage begun again, and the failed ones are told."""
    poison, kills, chance = "2,5,7", 10, random.Random(0)
    for _ in range(kills):
        script = subprocess.Popen(
            cheap_train(tmp_path, poison=poison),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(2.0, 5.0))
        script.send_signal(signal.SIGKILL)
        script.wait()
    ended = subprocess.run(
        cheap_train(tmp_path, poison=poison), cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    told = records(tmp_path)
    assert len(told) == 20
    failed = {row: record["failed"] for row, record in told.items() if record["failed"]}
    assert set(failed) == {("dpo", 2), ("dpo", 5), ("dpo", 7)}
    assert "ended by SIGKILL" in failed["dpo", 2]
    assert "did not finish (exit code 1)" in failed["dpo", 5]
    assert failed["dpo", 5].endswith("MemoryError: no room for the gradients")
    assert "the row's process ended by itself (ended by SIGKILL)" in failed["dpo", 7]
    finished = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/manifest.json")]
    by_key = Counter(manifest["key"] for manifest in finished)
    assert set(by_key.values()) == {1}
    begun = Counter((tmp_path / "begun").read_text().split())
    again = sum(begun[key] - 1 for key in by_key)
    assert again <= kills, "a stage was begun again without having been killed"

    ended = subprocess.run(
        cheap_train(tmp_path, poison=poison), cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 2 and ended.stderr.count("failed before") == 3
    assert Counter((tmp_path / "begun").read_text().split()) == begun, "nothing was missing"

    ended = subprocess.run(
        cheap_train(tmp_path, "retry=failed"), cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert not any(record["failed"] for record in records(tmp_path).values())


def records(outputs: Path) -> dict[tuple[str, int], dict[str, object]]:
    read = [json.loads(path.read_text()) for path in outputs.glob("table/*/rows/*.json")]
    return {(record["row"], record["seed"]): record for record in read}


def test_the_last_lines_of_a_row_that_raised_are_kept(tmp_path):
    """An error of ours in a row's own process: it is told whole, and the record has its end."""
    ended = subprocess.run(
        cheap_train(tmp_path, rows=("recipe=sft",)),
        cwd=ROOT,
        env={**os.environ, "MARCO_TEST_RAISE": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "ZeroDivisionError" in ended.stderr and "Traceback" in ended.stderr
    [record] = records(tmp_path).values()
    assert "exit code 1" in str(record["failed"]) and "ZeroDivisionError" in str(record["failed"])


def test_the_last_lines_of_a_stage_that_raised_stand_in_the_cell(tmp_path, capsys):
    ended = subprocess.run(
        cheap_train(tmp_path, poison="9,0", rows=("recipe=dpo", "seed=0")),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and "Traceback" in ended.stderr
    told = "MemoryError: no room for the gradients"
    [record] = records(tmp_path).values()
    assert "did not finish (exit code 1)" in str(record["failed"]) and told in str(record["failed"])
    cell = line(tmp_path, "+ DPO")
    assert "failed (seed 0): student dpo-" in cell and told in cell
    assert main(["status", str(tmp_path)]) == 0
    assert any(told in row for row in capsys.readouterr().out.splitlines() if "failed" in row)
