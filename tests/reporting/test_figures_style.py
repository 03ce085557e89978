"""What all figures share, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.reporting.figures import style
from marco.reporting.figures.style import Point
from marco.reporting.rows import Measure

from .drawn import curves, overlapping, texts


def measure(value, low, high, per_seed=(0.5,), kind="wilson"):
    return Measure(value=value, low=low, high=high, kind=kind, per_seed=per_seed, n=100)


def test_no_two_of_35_series_look_alike_by_colour_or_without_it():
    looks = [style.look(i) for i in range(35)]
    shapes = {(look["marker"], str(look["linestyle"])) for look in looks}
    assert len(shapes) == 35
    first = looks[:7]
    assert len({look["color"] for look in first}) == len({look["marker"] for look in first}) == 7


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=5))
def test_an_axis_from_0_ends_at_a_round_number_past_its_values(values):
    end = style.limit(values)
    assert all(value is None or value <= end for value in values)
    assert end in (5, 10, 20, 30, 40, 50, 60, 80, 100)


@given(st.text("ab =\n", max_size=200), st.integers(10, 50))
def test_wrapped_lines_fit_and_lose_no_word(text, width):
    lines = style.wrapped(text, width).split("\n")
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_setting_and_its_value_stay_together():
    text = style.wrapped("conservative DPO on pairs, β = 0.05, ε = 0.3", 31)
    assert text.split("\n")[1].startswith("β\xa0=\xa00.05")


def test_rows_grow_with_the_lines_of_their_labels():
    assert style.row_height(["a", "b"]) == style.row_height([]) == 0.42
    assert style.row_height(["a", "b\nc\nd\ne"]) > 0.7


def test_counts_are_told_as_ranges_where_they_differ():
    assert style.counted([200, 200], [1, 1]) == "n = 200, 1 seed"
    assert style.counted([90, 200], [3, 1]) == "n = 90–200, 1–3 seeds"


def test_the_kinds_of_interval_are_told():
    one = measure(0.5, 0.4, 0.6)
    agree = measure(0.0, 0.0, 0.1, per_seed=(0.0, 0.0))
    over = measure(0.5, 0.4, 0.6, per_seed=(0.4, 0.6), kind="t")
    assert style.interval_label([one], 0.95) == "95 % interval (Wilson, one seed)"
    assert "or seeds that agree; t over seeds" in style.interval_label([agree, over], 0.9)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_figure_gives_the_same_bytes_whenever_it_is_drawn(kind):
    def draw():
        figure = style.begin("A title", width=3, height=2)
        axes = figure.subplots()
        style.draw_curve(axes, [Point(x=1, measure=measure(0.5, 0.4, 0.6))], series=0, of=1)
        style.clear(axes, grid="both")
        return style.to_bytes(figure, kind, dpi=40)

    first = draw()
    assert first == draw()
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


@style.styled
def test_a_long_title_takes_room_of_its_own():
    title = "a table of many rows: " * 12
    figure = style.begin(title, width=5, height=2)
    figure.subplots().set_title("beside it")
    short = style.begin("t", width=5, height=2)
    assert figure.get_figheight() > short.get_figheight() + 1
    shown = texts(figure)[-1].get_window_extent()
    assert not overlapping(figure)
    assert any(t.get_text().startswith("a table of") for t in texts(figure))
    assert shown.x1 <= figure.bbox.x1


def test_a_curve_is_its_points_in_percent_with_whiskers_and_seeds():
    figure = style.begin("t", width=4, height=3)
    axes = figure.subplots()
    points = [
        Point(x=0, measure=measure(0.5, 0.4, 0.7, per_seed=(0.45, 0.55), kind="t")),
        Point(x=2, measure=measure(0.25, 0.2, 0.3)),
    ]
    style.draw_curve(axes, points, series=0, of=1)
    [line] = curves(axes)
    [dots] = [x for x in axes.lines if x.get_color() == style.INK]
    assert list(line.get_ydata()) == [50, 25]
    assert list(dots.get_ydata()) == pytest.approx([45, 55])
    [segments] = [c.get_segments() for c in axes.collections]
    assert [list(s[:, 1]) for s in segments] == [pytest.approx([40, 70]), pytest.approx([20, 30])]
