"""The workspace of a table, by what W&B would be sent."""

import json

import pytest

from marco.reporting import __main__ as reporting
from marco.reporting import workspace
from marco.reporting.loggers.protocol import STEP
from marco.sweep import folder_name

from .logged_rows import config_of, finish_all, log


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the command tells of the workspace of a table that has one task."""
    file = tmp_path_factory.mktemp("made") / "workspace.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "_saved", None)  # nothing is sent
        patch.setattr(workspace, "_entity", None)
        code = reporting.main(["workspace", "alpha", "--dry-run", "--json", str(file)])
    assert code == 0
    return json.loads(file.read_text())


def shown(value):
    """All texts in a workspace."""
    if isinstance(value, dict):
        return set().union(*map(shown, value.values()), map(str, value))
    if isinstance(value, list):
        return set().union(*map(shown, value))
    return {value} if isinstance(value, str) else set()


def test_it_has_the_panels_of_a_table(made):
    assert made["name"] == folder_name("alpha", (), row="", params={}) and made["url"] is None
    assert list(made["sections"]) == ["Rows", "Answers", "Training", "Samples", "Trees"]
    assert made["sections"]["Rows"][:2] == [
        "arithmetic: accuracy (BarPlot)",
        "arithmetic: no answer (BarPlot)",
    ]
    assert "samples (WeavePanelSummaryTable)" in made["sections"]["Samples"]
    assert "trees (MediaBrowser)" in made["sections"]["Trees"]
    assert len(made["sections"]["Training"]) == len(workspace.CURVES) + 1
    assert "margin by difference of lengths (LinePlot)" in made["sections"]["Training"]


def test_its_group_is_the_sweep_with_the_same_overrides():
    def group(*overrides):
        return workspace._composed("alpha", overrides)["group"]

    told = {"row": "alpha_${loss.alpha}", "params": {"recipe": "joint", "loss.alpha": "0.5,1"}}
    asked = ("experiments=alpha", "size=paper", "recipe=joint", "loss.alpha=0.5", "seed=1")
    assert group("size=paper") == folder_name("alpha", asked, **told)
    assert group() == group("recipe=joint") != group("recipe=masked_joint")
    assert group() != group("size=paper") == group("size=paper", "cluster.threads=1")


def test_it_has_what_the_paper_tells_of_languages():
    told = workspace._composed("step_by_step", ("size=paper",))
    tasks = {"tasks": told["tasks"], "swept": [], "project": "marco", "entity": "me"}
    sections = {section.name: section.panels for section in workspace.build("g", **tasks).sections}
    named = [panel.title.partition(":")[0] for panel in sections["Rows"]]
    languages = ["multi_if", "multi_if zh", "multi_if en", "multi_if other"]
    assert list(dict.fromkeys(named)) == ["gsm8k", "math", "aime", *languages]
    assert {panel.title.partition(":")[0] for panel in sections["Answers"]} == {*told["tasks"]}


@pytest.mark.parametrize("name", workspace._tables())
def test_every_table_has_one(name):
    assert workspace._composed(name, ())["group"].startswith(f"{name}-")


def test_what_makes_no_table_has_none(capsys):
    assert reporting.main(["workspace", "lr_sft", "--dry-run"]) == 2
    assert "there is no table 'lr_sft'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "tasks"),
    [([], ["arithmetic", "letter_count"]), (["size=paper"], ["gsm8k", "math"])],
)
def test_a_table_that_sweeps_tasks_shows_each(overrides, tasks):
    assert workspace._composed("lengths_figure", overrides)["tasks"] == tasks


def test_a_table_that_sweeps_a_key_shows_its_rows_over_it():
    made = workspace.build(
        "alpha", tasks=["gsm8k"], swept=["loss.alpha"], project="marco", entity="me"
    )
    accuracy, silence = made.sections[0].panels[2:]
    assert accuracy.title == "gsm8k: accuracy over loss.alpha" and accuracy.x.name == "loss.alpha"
    assert (accuracy.y.name, silence.y.name) == ("gsm8k/accuracy", "gsm8k/no_answer")


def test_it_shows_the_rows_own_runs_alone(made):
    (runs,) = made["spec"]["section"]["runSets"]
    told = {f["key"]["name"]: (f["op"], f["value"]) for f in runs["filters"]["filters"]}
    assert told == {"group": ("=", made["name"]), "jobType": ("=", "scores")}


def test_what_it_shows_is_what_a_row_logs(made, tmp_path):
    config = config_of(tmp_path)
    finish_all(config)
    log(config)
    (row,) = tmp_path.glob("csv/rows/scores-*")
    summary = set(json.loads((row / "summary.json").read_text()))
    lines = (row / "metrics.csv").read_text().splitlines()
    curves = {name for line in lines for name in (line.split(",")[0], line.split(",")[2])}
    training = {name for metrics in workspace.CURVES.values() for name in metrics}
    texts = {text.removeprefix("summary_metrics.") for text in shown(made["spec"])}
    metrics = {text for text in texts if text.startswith(("arithmetic/", "trees/", "train/last/"))}
    assert len(metrics) > 6 and metrics <= summary | curves
    assert training <= texts and STEP in texts  # see tests/training/test_live.py


def test_an_unknown_table_is_told_with_the_known_ones(capsys):
    assert reporting.main(["workspace", "alfa", "--dry-run"]) == 2
    assert "did you mean `alpha`" in capsys.readouterr().err


def test_a_refusal_of_the_server_is_told_in_a_line_without_keys(monkeypatch, capsys):
    def refuse(*_):
        raise ConnectionError("http://me:password1@host is down\nand a tail")

    made = workspace.build("alpha", tasks=[], swept=[], project="marco", entity="me")
    monkeypatch.setattr(type(made), "save", refuse)
    assert reporting.main(["workspace", "alpha", "--entity", "me"]) == 2
    told = capsys.readouterr().err
    assert "did not take the workspace: http://[removed]@host is down" in told
    assert "password1" not in told and "tail" not in told and "--dry-run" in told
