"""The figures that a table lists: each is drawn from what is on disk, or left out with a reason."""

from typing import get_args

import pytest

from marco.config import TableConfig
from marco.reporting.__main__ import main
from marco.reporting.figures import FigureName
from marco.reporting.figures.drawn import FIGURES, Scored, draw_figures
from marco.reporting.results import collect
from marco.reporting.table import RowSpec, make_table

ROWS = [RowSpec("sft", "SFT")]


def scored(folders, *swept):
    table = make_table(
        name="t", rows=ROWS, folders=folders, paper=None, paper_column="gsm8k", status={}
    )
    return Scored(table=table, rows=ROWS, results=collect(folders), swept=swept)


def test_every_name_has_a_figure():
    assert list(FIGURES) == list(get_args(FigureName))


def test_a_figure_is_drawn_in_both_kinds_and_others_say_what_they_lack(score):
    folder = score("sft", correct=80)
    files, left_out = draw_figures(list(FIGURES), scored([folder], "loss.alpha"))
    assert set(files) == {"no_answer.png", "no_answer.svg"}
    assert files["no_answer.png"].startswith(b"\x89PNG") and b"<svg" in files["no_answer.svg"]
    assert set(left_out) == set(FIGURES) - {"no_answer"}
    assert "no scores tell a number for loss.alpha" in left_out["sweep"]
    assert "there is no dataset" in left_out["chain_lengths"]
    assert "no row has a student" in left_out["tree_lengths"]
    for name in ("response_lengths", "test_at", "error_classes"):
        assert "no row has a result with a samples.jsonl" in left_out[name]


def test_a_sweep_without_a_setting_is_refused():
    values = {"name": "t", "row": "r", "rows": {"r": "R"}, "paper": None, "paper_column": "gsm8k"}
    values |= {"trees": False}
    for figures, swept in ((["sweep"], []), (["no_answer"], ["loss.alpha"])):
        with pytest.raises(ValueError, match="figure `sweep` needs `swept`"):
            TableConfig.model_validate({**values, "figures": figures, "swept": swept})


def test_the_command_draws_figures_of_any_scores(score, tmp_path, capsys):
    folder = score("sft", correct=80)
    assert main([str(folder), "--out", str(tmp_path / "out"), "--figures", "no_answer"]) == 0
    assert (tmp_path / "out" / "no_answer.svg").is_file()
    assert main([str(folder), "--out", str(tmp_path / "out"), "--figures", "no_anser"]) == 2
    assert "unknown figure 'no_anser': expected some of no_answer" in capsys.readouterr().err
