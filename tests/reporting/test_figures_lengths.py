"""Lengths: the density by hand and against its definition, and what is read from where."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.data.datasets import save
from marco.errors import UserError
from marco.reporting.figures.lengths import (
    Lengths,
    Source,
    apart,
    dataset_folders,
    density,
    density_curve,
    length_histograms,
    of_datasets,
    of_scores,
    of_trees,
)
from marco.reporting.results import collect
from marco.reporting.table import RowSpec
from marco.search.tree import Node, Tree

from .drawn import overlapping, said


def test_density_of_two_values_by_hand():
    # sd of 10 and 20 is 7.071, the quartiles 12.5 and 17.5: 5 / 1.34 = 3.731 is less.
    width = 0.9 * 5 / 1.34 * 2**-0.2
    kernels = sum(math.exp(-(((x - 12) / width) ** 2) / 2) for x in (10, 20, -10, -20))
    [found] = density([10, 20], [12])
    assert found == pytest.approx(kernels / (2 * width * math.sqrt(2 * math.pi)))


@given(st.lists(st.integers(0, 300), min_size=2, max_size=60).filter(lambda v: len(set(v)) > 1))
def test_all_of_a_density_lies_from_0_on(tokens):
    at = np.linspace(0, 3000, 60_001)
    curve = density(tokens, at)
    assert curve.min() >= 0
    assert np.trapezoid(curve, at) == pytest.approx(1, abs=2e-3)


def test_quartiles_that_are_equal_leave_the_standard_deviation():
    tokens = [50] * 9 + [90]
    [found] = density(tokens, [50])
    width = 0.9 * np.std(tokens, ddof=1) * 10**-0.2
    beside = math.exp(-((40 / width) ** 2) / 2)
    below = math.exp(-((100 / width) ** 2) / 2) * 9 + math.exp(-((140 / width) ** 2) / 2)
    assert found == pytest.approx((9 + beside + below) / (10 * width * math.sqrt(2 * math.pi)))


def test_a_density_is_as_wide_as_it_is_told_at_least():
    # Two kernels of width 5 around 10 and 12, at 11: exp(-(1 / 5)^2 / 2) / (5 sqrt(2 pi)).
    [found] = density([10, 12], [11], narrowest=5)
    reflected = (math.exp(-((21 / 5) ** 2) / 2) + math.exp(-((23 / 5) ** 2) / 2)) / 2
    expected = (math.exp(-((1 / 5) ** 2) / 2) + reflected) / (5 * math.sqrt(2 * math.pi))
    assert found == pytest.approx(expected)


def test_what_does_not_vary_has_no_density():
    assert density([7], [7]) is None and density([7, 7], [7]) is None


def tree(id, verdicts, task="arithmetic"):
    """A chain of i + 1 words for the i-th verdict."""
    nodes = [Node(id=0, parent=None, kind="prompt", model=None, text="?")]
    for i, verdict in enumerate(verdicts):
        text = " ".join(f"w{i}" for _ in range(i + 1))
        nodes.append(Node(id=i + 1, parent=0, kind="answer", model="m", text=text, verdict=verdict))
    return Tree(
        id=id,
        task=task,
        problem="?",
        gold="",
        pattern="a",
        models={},
        seed=0,
        status="solved",
        usage={},
        nodes=nodes,
    )


def test_thirds_of_the_correct_chains_of_each_tree():
    trees = [tree("p", ["correct"] * 6 + ["wrong"]), tree("q", ["wrong", "correct"])]
    other = [tree("r", ["correct"], task="math")]
    found = of_trees({"arithmetic": trees, "math": other}, encode=str.split)
    # Of lengths 1 to 6 a third is two chains; of a single chain every third is that one.
    assert found == [
        Lengths("arithmetic", "shortest", "correct chains", (1, 2, 2)),
        Lengths("math", "shortest", "correct chains", (1,)),
        Lengths("arithmetic", "medium", "correct chains", (3, 4, 2)),
        Lengths("math", "medium", "correct chains", (1,)),
        Lengths("arithmetic", "longest", "correct chains", (6, 5, 2)),
        Lengths("math", "longest", "correct chains", (1,)),
    ]
    with pytest.raises(UserError, match="no tree holds a correct chain"):
        of_trees({"arithmetic": [tree("p", ["wrong"])]}, encode=str.split)


def test_rows_of_one_task_have_the_same_axes_and_tasks_their_own():
    lengths = [
        Lengths("pattern a", "longest", "SFT", (100, 105, 110, 120)),
        Lengths("pattern b", "longest", "SFT", (100, 300, 400, 420)),
    ]
    a, b = length_histograms("t", lengths, is_one_task=True).axes
    assert a.get_xlim() == b.get_xlim() and a.get_ylim() == b.get_ylim()
    assert a.get_xlabel() == b.get_xlabel()  # bins are as wide
    spread = Lengths("pattern c", "longest", "SFT", tuple(range(100, 700, 50)))
    narrow = Lengths("pattern d", "longest", "SFT", tuple(range(80, 140)) * 5)
    axes = length_histograms("t", [spread, narrow], is_one_task=True).axes[1]
    assert sum(bar.get_height() > 0 for bar in axes.patches) >= 3  # not one bar 100 tokens wide
    few = [Lengths("t", "longest", "SFT", (1100, 1200, 1300) * 10)]
    many = [Lengths("u", "longest", "SFT", tuple(range(100, 120)) * 400), *few]
    assert all(
        "beyond" not in text for text in said(length_histograms("t", many, is_one_task=True))
    )
    a, b = length_histograms("t", lengths).axes
    assert a.get_xlim()[1] < 200 and b.get_xlim()[1] > 400


def test_rows_on_other_trees_of_a_task_stand_apart():
    def source(row, task, folder, trees):
        return Source(row=row, task=task, folder=Path(folder), trees=Path(trees))

    # Of one task's trees it is the task, whichever row has which of their datasets.
    alike = [source(row, "math", f, "t") for row in ("x", "y") for f in ("sft", "pairs")]
    assert apart(alike) == {"math": [Path("sft"), Path("pairs")]}
    assert apart([*alike, source("x", "gsm8k", "g", "u")])["gsm8k"] == [Path("g")]
    # Two seeds of a row's trees are one row; rows on the same trees stand together.
    patterns = [source("a", "math", "a0", "a0"), source("a", "math", "a1", "a1")]
    patterns += [source("b", "math", "b0", "b0"), source("c", "math", "b0", "b0")]
    assert apart(patterns) == {"a": [Path("a0"), Path("a1")], "b and 1 more": [Path("b0")]}
    both = apart([*patterns, source("a", "gsm8k", "g", "g")])
    assert list(both) == ["a, math", "b and 1 more, math", "gsm8k"]


def dataset(folder: Path, rows) -> Path:
    folder.mkdir(parents=True)
    save(rows, folder, stats={})
    return folder


def manifest(folder: Path, inputs, labels=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"schema": 1, "inputs": {k: {"path": str(p)} for k, p in inputs.items()}}
    (folder / "manifest.json").write_text(json.dumps(told | {"labels": labels or {}}))
    return folder


def test_datasets_of_students_are_found_and_read_by_bucket(tmp_path):
    sft = dataset(tmp_path / "sft", [{"bucket": "longest", "tokens": n} for n in (9, 8)])
    pairs = dataset(
        tmp_path / "pairs",
        [{"bucket": "shortest", "chosen_tokens": 3, "rejected_tokens": n} for n in (5, 6)],
    )
    trees = manifest(tmp_path / "trees", {}, {"task": {"name": "gsm8k"}})
    for folder in (sft, pairs):
        manifest(folder, {"trees": trees})
    first = manifest(tmp_path / "first", {"dataset": sft, "start": tmp_path / "a model"})
    second = manifest(tmp_path / "second", {"dataset": pairs, "start": first})
    folders = dataset_folders([second, first])
    assert folders == {"gsm8k": [pairs, sft]}
    assert of_datasets(folders) == [
        Lengths("gsm8k", "shortest", "chosen", (3, 3)),
        Lengths("gsm8k", "shortest", "rejected", (5, 6)),
        Lengths("gsm8k", "longest", "SFT", (9, 8)),
    ]
    # A published dataset has no trees of ours.
    manifest(sft, {})
    assert dataset_folders([first]) == {"sft": [sft]}


def test_what_holds_no_lengths_is_told(tmp_path, score):
    with pytest.raises(UserError, match="nowhere holds no dataset: give one"):
        of_datasets({"gsm8k": [tmp_path / "nowhere"]})
    other = dataset(tmp_path / "other", [{"id": "a", "tokens": 3}])
    with pytest.raises(UserError, match="does not tell bucket and tokens"):
        of_datasets({"gsm8k": [other]})
    with pytest.raises(UserError, match="is no finished stage"):
        dataset_folders([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no row has a result with a samples.jsonl"):
        of_scores([RowSpec("sft", "SFT")], collect([score("sft", correct=80)]))
    with pytest.raises(UserError, match="t: there are no lengths to show"):
        length_histograms("t", [])


def test_responses_of_all_seeds_stand_together_by_row(score):
    folders = [score("sft", seed, correct=1, n=3, keeps=True) for seed in (0, 1)]
    folders.append(score("base", correct=1, n=2, keeps=True))
    rows = [RowSpec("base", "base model"), RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO")]
    assert of_scores(rows, collect(folders)) == [
        Lengths("arithmetic", "base model", "responses", (50,) * 2),
        Lengths("arithmetic", "SFT", "responses", (50,) * 6),
    ]


def test_strips_tell_n_and_median_and_show_shares():
    lengths = [
        Lengths("gsm8k", "shortest", "chosen", (10, 20, 30)),
        Lengths("gsm8k", "shortest", "rejected", (10, 10, 40, 50)),
        Lengths("gsm8k", "longest", "SFT", (60,)),
    ]
    figure = length_histograms("lengths_figure", lengths)
    told = said(figure)
    assert "lengths_figure: lengths in tokens, histogram and kernel density" in told
    assert "chosen: n = 3, median 20 rejected: n = 4, median 25" in told
    assert "SFT: n = 1, median 60" in told and "shortest" in told and "tokens (height: %" in told
    upper, lower = figure.axes
    heights = [sum(bar.get_height() for bar in bars) for bars in upper.containers]
    assert heights == pytest.approx([100, 100])
    assert len(upper.lines) == 2 and len({line.get_linestyle() for line in upper.lines}) == 2
    hatches = {bars[0].get_hatch() for bars in upper.containers}
    assert len(hatches) == 2
    assert not lower.lines  # one chain has no density
    assert upper.get_xlim() == lower.get_xlim() and upper.get_ylim() == lower.get_ylim()
    assert not overlapping(figure)


def test_what_lies_far_beyond_is_told_and_not_drawn():
    lengths = [Lengths("t", "row", "responses", (*range(50, 250), 9000))]
    figure = length_histograms("t", lengths)
    assert figure.axes[0].get_xlim()[1] < 400
    assert "n = 201, median 150, 1 beyond, to 9,000" in said(figure)


def test_a_reply_that_was_cut_off_has_no_length_and_is_told(score):
    folder = score("sft", correct=1, n=4, keeps=True)
    path = folder / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    cut = [line | {"finish": "length", "tokens": 512} for line in lines[:3]]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*cut, lines[3]]))
    [found] = of_scores([RowSpec("sft", "SFT")], collect([folder]))
    assert found == Lengths("arithmetic", "SFT", "responses", (50,), 3)
    all_cut = Lengths("arithmetic", "worse", "responses", (), 7)
    figure = length_histograms("t", [found, all_cut])
    assert "n = 4, 3 cut off the others: median 50" in said(figure)
    assert "n = 7, all cut off" in said(figure)
    upper, lower = figure.axes
    [bars] = upper.containers
    assert sum(bar.get_height() for bar in bars) == pytest.approx(25)  # of all four
    assert upper.get_xlim()[1] < 100 and not lower.containers
    assert "n = 7, all cut off" in said(length_histograms("t", [all_cut]))
    assert density_curve(all_cut, places=9) == {}
    (folder / "samples.jsonl").write_text(json.dumps(cut[0]) + "\n")
    assert of_scores([RowSpec("sft", "SFT")], collect([folder])) == [
        Lengths("arithmetic", "SFT", "responses", (), 1)
    ]


@pytest.mark.parametrize(("strips", "tasks"), [(20, 1), (3, 3), (2, 4), (1, 1)])
def test_many_strips_and_tasks_stay_clear_of_each_other(strips, tasks):
    title = "Qwen2.5-1.5B-Instruct, conservative DPO on shortest pairs, β = 0.05, row "
    rng = np.random.default_rng(0)
    lengths = [
        Lengths(f"task{j}", f"{title}{i}", "responses", tuple(rng.integers(5, 500, 50)), i)
        for j in range(tasks)
        for i in range(strips)
    ]
    figure = length_histograms("step_by_step", lengths)
    assert len(figure.axes) == strips * tasks
    assert not overlapping(figure)


def test_tasks_whose_strips_differ_stand_below_each_other():
    lengths = [
        Lengths("gsm8k", "SFT, shortest", "responses", (10, 20)),
        Lengths("gsm8k", "SFT, longest", "responses", (30, 40)),
        Lengths("letters", "letters: SFT", "responses", (5, 7)),
    ]
    figure = length_histograms("lengths_figure", lengths)
    first, second, third = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "SFT, shortest",
        "SFT, longest",
        "letters: SFT",
    ]
    assert first.get_title(loc="left") == "gsm8k" and third.get_title(loc="left") == "letters"
    assert first.get_xlim() == second.get_xlim() != third.get_xlim()
    assert not overlapping(figure)


def test_a_density_curve_has_the_places_of_its_density_and_the_area_of_what_ended():
    def of(tokens, cut_off=0):
        return Lengths("t", "row", "responses", tuple(tokens), cut_off)

    for cut_off, area in ((0, 1), (300, 0.25)):
        curve = density_curve(of(range(50, 150), cut_off), places=21)
        assert len(curve) == 21 and min(curve) == 0 and max(curve) >= 149
        assert sum(curve.values()) * (max(curve) / 20) == pytest.approx(area, rel=0.02)
    assert density_curve(of([50] * 8), places=21) == {}
    assert len(density_curve(of([1, 2, 3]), places=64)) <= 5  # whole numbers, each once
