"""Figures beside a table, in each form, by hand."""

import csv
import json

from marco.reporting.grid import Estimate, Grid

GRID = Grid(
    name="classes",
    title="Classes, 100 %",
    heads=("row", "n", "share, %", "tokens", "cut off, %"),
    rows=(
        ("a|b", 1200, Estimate(value=5, low=0.25, high=12.5), 1234.5, None),
        ("c_d", 3, None, 0.0123, 0.5),
    ),
    notes=("x < y",),
)


def test_markdown_tells_intervals_and_three_digits_and_escapes() -> None:
    assert GRID.markdown().splitlines() == [
        "#### Classes, 100 %",
        "",
        "| row | n | share, % | tokens | cut off, % |",
        "|---|---:|---:|---:|---:|",
        "| a\\|b | 1,200 | 5.0 [0.2, 12.5] | 1,234 | – |",
        "| c_d | 3 | – | 0.0123 | 0.5 |",
        "",
        "- x &lt; y",
    ]


def test_for_programs_nothing_is_rounded_to_a_few_digits_or_lost() -> None:
    first, second = csv.DictReader(GRID.comma_separated().splitlines())
    assert first == {
        "row": "a|b",
        "n": "1200",
        "share, %": "5",
        "share, % low": "0.25",
        "share, % high": "12.5",
        "tokens": "1234.5",
        "cut off, %": "",
    }
    assert (second["share, %"], second["share, % low"], second["cut off, %"]) == ("", "", "0.5")
    told = json.loads(GRID.as_json())
    assert told["rows"][0]["share, %"] == {"value": 5, "low": 0.25, "high": 12.5}
    assert told["rows"][1]["share, %"] is None and told["title"] == GRID.title


def test_latex_is_a_float_of_as_many_columns() -> None:
    text = GRID.latex()
    assert r"\begin{tabular}{lrrrr}" in text and r"\caption{Classes, 100~\%}" in text
    assert r"a\textbar{}b & 1,200 & 5.0 {[}0.2, 12.5{]} & 1,234 & -- \\" in text


def test_files_are_named_by_it() -> None:
    assert sorted(GRID.files()) == ["classes.csv", "classes.json", "classes.md", "classes.tex"]
