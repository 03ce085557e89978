"""What TensorBoard would show, by its own reader."""

import json

import pytest

from ..logged_rows import STEPS, config_of, finish_all, log, scores_of, train
from .reading import tensors


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The scalars and texts of each run of a row that failed once, by the run's folder."""
    outputs = tmp_path_factory.mktemp("row")
    config = config_of(outputs, "logger=tensorboard", "logger.samples=3", "logger.trees=2")
    finish_all(config, until="student")
    train(scores_of(config).inputs["student"], outputs, 2)
    log(config, None, "it was poisoned")
    finish_all(config)
    log(config)
    return {path.parent: tensors(path.parent) for path in outputs.rglob("logged.json")}


def of(shown, name):
    (found,) = (told for folder, told in shown.items() if folder.name.startswith(name))
    return found


def test_a_curve_goes_on_where_the_attempt_before_ended(shown):
    scalars, texts = of(shown, "student-conservative")
    assert scalars["train/loss"] == [(i, pytest.approx(1 / i)) for i in range(1, STEPS + 1)]
    assert texts["state"] == [b"finished"]


def test_final_figures_and_curves_over_tries_are_scalars(shown):
    scalars, _ = of(shown, "scores")
    assert scalars["final/arithmetic/accuracy"][-1] == (0, 0.5)
    assert scalars["arithmetic/test_at_tries"] == [(1, 0.5), (2, 1.0)]


def test_samples_are_a_table_and_the_lineage_a_text(shown):
    _, texts = of(shown, "scores")
    head, *rows = texts["samples"]
    assert head[0] == b"task" and len(rows) == 3
    told = json.loads(texts["lineage"][0])
    assert [one["kind"] for one in told["from"]] == ["student"]


def test_trees_lie_beside_the_events(shown):
    (folder,) = (folder for folder in shown if folder.name.startswith("trees"))
    assert len(list((folder / "trees").glob("*.html"))) == 2
