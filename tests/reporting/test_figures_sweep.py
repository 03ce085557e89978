"""Curves over a swept setting: where values stand, and what is drawn of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from marco.errors import UserError
from marco.reporting.figures.sweep import read_places, space_out, sweep_curves, sweep_of
from marco.reporting.paper import load_paper
from marco.reporting.results import collect
from marco.reporting.table import RowSpec, make_table

from .drawn import curves, overlapping, said

ALPHA, BETA, EPSILON = "loss.alpha", "loss.preference.beta", "loss.preference.epsilon"


@pytest.fixture
def swept(score):
    """Writes the scores of a sweep as its stage does, with settings in the manifest."""

    def write(row, settings, seed=0, **scored):
        folder = score(row, seed, **scored)
        nested = {}
        for name, value in settings.items():
            place = nested
            *parts, last = name.split(".")
            for part in parts:
                place = place.setdefault(part, {})
            place[last] = value
        manifest = {"schema": 1, "labels": {"settings": nested}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return write


def table_of(folders, name="alpha"):
    results = collect(folders)
    rows = list(dict.fromkeys(result.row for result in results))
    specs = [RowSpec(row, row) for row in rows]
    table = make_table(
        name=name, rows=specs, folders=folders, paper=None, paper_column="gsm8k", status={}
    )
    return table, results


def test_points_are_in_the_order_of_the_setting_with_their_intervals(swept):
    folders = [swept(f"a{x}", {ALPHA: x}, correct=c) for x, c in ((2.0, 70), (0, 60), (0.5, 80))]
    table, results = table_of(folders)
    sweep = sweep_of(table, read_places(results, ALPHA), setting=ALPHA)
    [panel] = sweep.panels
    [curve] = panel.accuracy
    assert [(p.x, p.measure.value) for p in curve.points] == [(0, 0.6), (0.5, 0.8), (2, 0.7)]
    figure = sweep_curves(sweep)
    left, right = figure.axes
    [line] = curves(left)
    assert list(line.get_ydata()) == pytest.approx([60, 80, 70])
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "0.5", "2"]
    told = said(figure)
    assert "alpha: accuracy and no-answer ratio against α" in told and "α (loss.alpha)" in told
    assert "arithmetic (n = 100, 1 seed): accuracy (higher is better)" in told
    low, high = left.get_ylim()
    assert low < 50.2 < high and high - low < 60  # Wilson of 60 and 80 of 100: 50.2 to 86.7
    assert right.get_ylim()[0] <= 0 < right.get_ylim()[1]
    assert not overlapping(figure)


def test_a_second_setting_makes_curves_in_the_order_of_its_numbers(swept):
    folders = [
        swept(f"b{b}e{e}", {BETA: b, EPSILON: e}, seed, correct=60)
        for e in (0.2, 0.1, 0.05)
        for b in (0.01, 0.1, 1.0)
        for seed in (0, 1)
    ]
    table, results = table_of(folders, "beta_epsilon")
    sweep = sweep_of(table, read_places(results, BETA, apart=EPSILON), setting=BETA)
    assert [curve.title for curve in sweep.panels[0].accuracy] == ["ε = 0.05", "ε = 0.1", "ε = 0.2"]
    figure = sweep_curves(sweep)
    assert [line.get_marker() for line in curves(figure.axes[0])] == ["o", "s", "^"]
    assert "ε = 0.05" in said(figure) and figure.axes[0].get_xscale() == "log"
    assert not overlapping(figure)


def test_the_papers_values_stand_beside_where_it_has_some(swept):
    folders = [swept(f"a{x}", {ALPHA: x}, correct=60) for x in (0, 1)]
    table, results = table_of(folders)
    printed = {"a0": {"gsm8k": (87.5, None)}, "a1": {"gsm8k": (86.8, 0.4)}}
    paper = load_paper("step_by_step", column="gsm8k").model_copy(update={"rows": printed})
    table = replace(table, paper=paper)
    figure = sweep_curves(sweep_of(table, read_places(results, ALPHA), setting=ALPHA))
    beside = [
        [list(line.get_xydata().ravel()) for line in axes.lines if line.get_marker() == "D"]
        for axes in figure.axes
    ]
    assert beside == [[[0, 87.5, 1, 86.8]], [[1, 0.4]]]
    assert "paper: Llama-3.1-8B-Instruct, GSM8K" in said(figure)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0, 0.5, 1, 1.5, 2], "linear"),
        ([0.1], "linear"),
        ([0.0], "linear"),
        ([-1, 10, 100], "linear"),
        ([0.01, 0.03, 0.1, 0.3, 1], "log"),
        ([0, 0.01, 0.1, 1], "symlog"),
    ],
)
def test_values_stand_apart_and_in_sight(values, scale):
    axes = Figure().subplots()
    space_out(axes, values)
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    assert low < min(values) and max(values) < high
    places = axes.transData.transform([(x, 0) for x in values])[:, 0]
    width = axes.bbox.width
    assert all(np.diff(places) > 0.05 * width)
    assert list(axes.get_xticks()) == values


def test_ten_tasks_and_a_single_point_are_drawn(swept):
    tasks = [f"task{i}" for i in range(4)]
    folders = [swept("a", {ALPHA: 1.0}, correct=60, task=task) for task in tasks]
    table, results = table_of(folders)
    figure = sweep_curves(sweep_of(table, read_places(results, ALPHA), setting=ALPHA))
    assert len(figure.axes) == 8 and not overlapping(figure)


def test_what_is_no_sweep_is_told(swept, score):
    plain = [score("sft", correct=60)]
    with pytest.raises(UserError, match="no scores tell a number for loss.alpha"):
        read_places(collect(plain), ALPHA)
    with pytest.raises(UserError, match="no scores tell a number for loss.mask"):
        read_places(collect([swept("m", {"loss.mask": "all"}, correct=60)]), "loss.mask")
    same = [swept(f"r{i}", {ALPHA: 1.0}, correct=60) for i in range(2)]
    table, results = table_of(same)
    with pytest.raises(UserError, match="'r0' and 'r1' both have loss.alpha = 1"):
        sweep_of(table, read_places(results, ALPHA), setting=ALPHA)
    table, _ = table_of(plain)
    with pytest.raises(UserError, match="no row of alpha with a value of loss.alpha has a result"):
        sweep_of(table, {"r0": (1.0, "")}, setting=ALPHA)


def test_seeds_of_a_row_with_different_values_are_refused(swept):
    folders = [swept("a", {ALPHA: float(seed)}, seed, correct=60) for seed in (0, 1)]
    with pytest.raises(UserError, match="row 'a' has several values of loss.alpha, one is in"):
        read_places(collect(folders), ALPHA)
