"""Margins against lengths: the correlation and its interval by hand, and what is read and drawn."""

import json
import math

import pytest

from marco.errors import UserError
from marco.reporting.figures import style
from marco.reporting.figures.margin_length import (
    Pairs,
    interval,
    margin_length_scatter,
    pairs_of,
)
from marco.reporting.results import collect
from marco.reporting.table import RowSpec
from marco.training.figures import PairFigures, pair_line

from .drawn import overlapping, said


def pairs(row="dpo", title="+ DPO", seed=0, points=((-2, 1.0), (0, 2.0), (2, 3.0), (4, 3.0))):
    differences, margins = zip(*points, strict=True)
    return Pairs(row=row, title=title, seed=seed, margins=margins, differences=differences)


@pytest.fixture
def trained(score, tmp_path):
    """Scores of a student whose folder holds the pairs of points (length difference, margin)."""

    def write(row, points, seed=0):
        student = tmp_path / f"student-{row}-{seed}"
        student.mkdir()
        if points is not None:
            figures = [
                PairFigures(row=i, chosen=m, rejected=0.0, chosen_tokens=50 + d, rejected_tokens=50)
                for i, (d, m) in enumerate(points)
            ]
            lines = [pair_line(pair, step=1, scale=0.1) for pair in figures]
            rows = [lines[0].keys(), *(line.values() for line in lines)] if lines else []
            text = "".join(",".join(map(str, row)) + "\n" for row in rows)
            (student / "pairs.csv").write_text(text)
        folder = score(row, seed, correct=80)
        manifest = {"schema": 1, "labels": {}, "inputs": {"student": {"path": str(student)}}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return write


def test_correlation_and_share_by_hand():
    # Deviations -3, -1, 1, 3 and -1.25, -0.25, 0.75, 0.75: 7 over the root of 20 times 2.75.
    assert pairs().correlation == pytest.approx(7 / math.sqrt(20 * 2.75))
    assert pairs(points=((1, -1.0), (2, 0.0), (3, 5.0), (4, 1.0))).right == 0.5
    assert pairs(points=((1, 1.0), (1, 2.0))).correlation is None
    assert pairs(points=((1, 1.0),)).correlation is None


def test_fishers_interval_by_hand():
    # atanh 0.5 is 0.549306, and 1.959964 / sqrt(100) 0.1959964.
    bounds = interval(0.5, 103, confidence=0.95)
    assert bounds == pytest.approx((math.tanh(0.3533097), math.tanh(0.7453025)), abs=1e-6)
    assert interval(0.5, 3, confidence=0.95) is None and interval(1.0, 9, confidence=0.95) is None


def test_pairs_are_found_by_the_student_that_scores_are_of(trained, score):
    points = [(-2, 1.0), (4, 2.5)]
    folders = [trained("dpo", points, seed=1), trained("dpo", [(0, -1.0)]), trained("sft", None)]
    rows = [RowSpec("base", "base"), RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO")]
    found, confidence = pairs_of(rows, collect([*folders, score("base", correct=1)]))
    assert confidence == 0.95
    assert [(one.row, one.title, one.seed) for one in found] == [
        ("dpo", "+ DPO", s) for s in (0, 1)
    ]
    assert found[1] == pairs(seed=1, points=points)


def test_what_is_not_there_is_told(trained):
    rows = [RowSpec("dpo", "+ DPO")]
    with pytest.raises(UserError, match="no row's student has a pairs.csv beside it: train one"):
        pairs_of(rows, collect([trained("dpo", None)]))
    with pytest.raises(UserError, match="pairs.csv holds no pair: train again"):
        pairs_of(rows, collect([trained("dpo", [], seed=1)]))
    folder = trained("dpo", [(1, 1.0)], seed=2)
    student = next(folder.parents[1].glob("student-dpo-2"))
    (student / "pairs.csv").write_text("row,step\n1,2\n")
    with pytest.raises(UserError, match="pairs.csv holds no margins and lengths of pairs"):
        pairs_of(rows, collect([folder]))
    with pytest.raises(UserError, match="t: there are no pairs to show"):
        margin_length_scatter("t", [], confidence=0.95)


def test_points_line_and_figures_are_drawn():
    figure = margin_length_scatter("step_by_step", [pairs()], confidence=0.95)
    [axes] = figure.axes
    [points] = axes.collections
    assert points.get_offsets().tolist() == [[-2, 1], [0, 2], [2, 3], [4, 3]]
    [slope] = [line for line in axes.lines if line.get_linestyle() == "--"]
    # Slope 7/20 through the means 1 and 2.25.
    assert list(slope.get_ydata()) == pytest.approx([2.25 - 3 * 0.35, 2.25 + 3 * 0.35])
    told = said(figure).replace("\xa0", " ")
    assert "margin of each preference pair against its difference of lengths" in told
    assert "+ DPO n = 4 pairs; r = 0.94 [-0.19, 1.00]; margin > 0 in 100%" in told
    assert "margin, nats" in told and "tokens, chosen less rejected" in told
    assert not overlapping(figure)


def test_seeds_are_told_apart_by_their_markers():
    figure = margin_length_scatter("t", [pairs(), pairs(seed=3)], confidence=0.95)
    told = said(figure).replace("\xa0", " ")
    assert "r = 0.94, 0.94 by seed" in told and "a pair, seed 0" in told and "seed 3" in told
    shapes = {points.get_paths()[0].vertices.shape for points in figure.axes[0].collections}
    assert len(shapes) == 2


def test_a_single_pair_is_drawn():
    figure = margin_length_scatter("t", [pairs(points=((1, 1.0),))], confidence=None)
    assert "n = 1 pairs; r = undefined" in said(figure).replace("\xa0", " ")
    assert not overlapping(figure)


def test_twenty_rows_with_long_titles_stay_clear_of_each_other():
    title = "Qwen2.5-1.5B-Instruct, chains of the longest bucket, conservative DPO, β = 0.05, row "
    found = [pairs(row=f"r{i}", title=f"{title}{i}") for i in range(20)]
    figure = margin_length_scatter("step_by_step", found, confidence=0.95)
    assert len(figure.axes) == 20 and not overlapping(figure)


def test_a_cloud_of_pairs_is_a_picture_within_an_svg():
    def drawn(count):
        points = [(i, float(i % 7)) for i in range(count)]
        figure = margin_length_scatter("t", [pairs(points=points)], confidence=0.95)
        return style.to_bytes(figure, "svg", dpi=40)

    assert b"<image" not in drawn(100)
    cloud = drawn(5000)
    assert b"<image" in cloud and cloud == drawn(5000)


def test_margins_without_a_reference_are_told_as_such(trained, tmp_path):
    folders = [trained(name, [(1, 0.5), (2, 1.0)]) for name in ("dpo", "simpo")]
    for name in ("dpo", "simpo"):
        order = {"kind": "student", "config": {"loss": {"preference": {"name": name}}}}
        (tmp_path / f"student-{name}-0" / "config.yaml").write_text(json.dumps(order))
    rows = [RowSpec(name, name) for name in ("dpo", "simpo")]
    found, confidence = pairs_of(rows, collect(folders))
    assert [one.has_reference for one in found] == [True, False]
    figure = margin_length_scatter("losses", found, confidence=confidence)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["margin, nats", "margin without reference, nats"]
