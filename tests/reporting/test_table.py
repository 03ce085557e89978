import csv
import io
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from marco.errors import UserError
from marco.reporting.__main__ import main
from marco.reporting.paper import load_paper
from marco.reporting.table import RowSpec, write_table

ROWS = [RowSpec("sft", "SFT"), RowSpec("dpo", "+ DPO"), RowSpec("joint", "+ joint loss, α = 1")]
FILES = {"table.md", "table.csv", "table.tex", "table.json", "table.png", "table.svg"}


def write(out, folders, rows=ROWS, name="step_by_step", paper="step_by_step", **status):
    return write_table(
        name=name,
        rows=rows,
        folders=folders,
        out=out,
        paper=paper,
        paper_column="gsm8k",
        status=status,
    )


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_holds_rows_in_order_with_the_papers_beside(score, tmp_path):
    folders = [score("joint", correct=78), score("sft", correct=80)]
    text = write(tmp_path / "out", folders, dpo="failed")
    assert lines_of(text)[2:] == [
        "| SFT | 100 × 1 | 80.0 [71.1, 86.7] | 0.0 [0.0, 3.7] | 87.4 | 0.23 |",
        "| + DPO | failed | – | – | 86.2 | 6.37 |",
        "| + joint loss, α = 1 | 100 × 1 | 78.0 [68.9, 85.0] ‡ | 0.0 [0.0, 3.7] ‡ | 86.8 | 0.38 |",
    ]
    assert "‡ Not compared: the row above has no result" in text
    assert "Wilson" in text and "Student" not in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert (tmp_path / "out/table.md").read_text() == text


def test_differences_within_noise_are_marked(score, tmp_path):
    folders = [score("sft", correct=80), score("dpo", correct=78, silent=20)]
    text = write(tmp_path, folders, rows=ROWS[:2])
    assert lines_of(text)[3].startswith(
        "| + DPO | 100 × 1 | 78.0 [68.9, 85.0] † | 20.0 [13.3, 28.9] |"
    )
    assert "† The difference to the row above is within noise: its 95 % interval" in text


def test_paired_rows_tell_how_they_are_compared(score, tmp_path):
    folders = [score("sft", correct=80, keeps=True), score("dpo", correct=88, keeps=True)]
    folders.append(score("joint", correct=90, keeps=True))
    text = write(tmp_path, folders)
    marks = [line.split(" | ")[2][-1] for line in lines_of(text)[2:]]
    assert marks == ["]", "]", "†"]  # 8 of 8 problems, and 2 of 2
    assert "holds zero, or p of the test is 0.05 or more (paired by problem: " in text
    assert "McNemar's exact test" in text and "Newcombe" not in text and "Welch" not in text
    assert "Not corrected for the number of comparisons." in text
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    told = [(line["accuracy_difference_interval"], line["accuracy_difference_p"]) for line in lines]
    assert told == [("", ""), ("paired", "0.007812"), ("paired", "0.5")]


def test_official_metrics_are_paired_too(talk_score, tmp_path):
    folders = [
        talk_score("sft", english="+" * 22 + "-" * 18, chinese="+" * 6 + "-" * 4),
        talk_score("dpo", english="+" * 30 + "-" * 10, chinese="+" * 6 + "-" * 4),
    ]
    write(tmp_path, folders, rows=ROWS[:2])
    lines = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
    dpo = {line["task"]: line for line in lines if line["row"] == "dpo"}
    kinds = {line["accuracy_difference_interval"] for line in dpo.values()}
    assert kinds == {"paired"} and len(dpo) == 4
    en = dpo["multi_if en"]
    assert (en["accuracy_difference"], en["accuracy_within_noise"]) == ("20.0000", "False")
    assert dpo["multi_if zh"]["accuracy_within_noise"] == "True"


def test_the_length_of_replies_is_told(score, tmp_path):
    folders = [score("sft", correct=80, max_tokens=512), score("dpo", correct=80, max_tokens=512)]
    text = write(tmp_path, folders, rows=ROWS[:2])
    assert "Tokens of a reply at most: arithmetic 512 (up to 0.0 % of a row's are cut off)." in text
    lines = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
    assert [line["max_tokens"] for line in lines] == ["512", "512"]
    assert "Tokens of a reply" not in write(tmp_path, [score("joint", correct=8)], rows=ROWS[2:])


def test_tries_tell_their_interval(score, tmp_path):
    text = write(tmp_path, [score("sft", correct=80, tries=4)], rows=ROWS[:1])
    assert "several samples a problem (tries, turns): bootstrap over the n problems (BCa)" in text
    assert "| SFT | 100 × 1 | 80.0 [" in text
    # No answer is missing in any: a bootstrap over the problems would have no width.
    assert "one seed, and where all problems have the same share: Wilson's score interval" in text


def test_several_seeds_tell_their_number_and_their_interval(score, tmp_path):
    folders = [score("sft", seed, correct=k) for seed, k in enumerate([70, 60, 80])]
    text = write(tmp_path, folders, rows=ROWS[:1], sft="running")
    assert "| SFT | 100 × 3 (running) | 70.0 [45.2, 94.8] | 0.0 [0.0, 3.7] |" in text
    assert "t interval over seeds (df = seeds − 1)" in text
    assert "where all seeds of a row agree exactly: Wilson" in text


def test_csv_holds_the_numbers_once_per_row_and_task(score, tmp_path):
    folders = [score("sft", correct=80), score("sft", correct=7, task="gsm8k")]
    write(tmp_path, [*folders, score("dpo", correct=3)])
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(line["row"], line["task"], line["status"]) for line in lines] == [
        ("sft", "arithmetic", "finished"),
        ("sft", "gsm8k", "finished"),
        ("dpo", "arithmetic", "finished"),
        ("joint", "", "pending"),
    ]
    dpo = lines[2]
    assert (dpo["n"], dpo["seeds"], dpo["confidence"]) == ("100", "1", "0.95")
    assert (dpo["accuracy_percent"], dpo["accuracy_difference"]) == ("3.0000", "-77.0000")
    assert (dpo["accuracy_interval"], dpo["accuracy_difference_interval"]) == ("wilson", "newcombe")
    assert (dpo["accuracy_within_noise"], dpo["no_answer_within_noise"]) == ("False", "True")
    # The paper's stand beside its own task; a row that is not there yet has them too.
    papers = ("paper_column", "paper_accuracy_percent", "paper_no_answer_percent")
    assert [tuple(line[name] for name in papers) for line in lines] == [
        ("", "", ""),
        ("gsm8k", "87.4", "0.23"),
        ("", "", ""),
        ("gsm8k", "86.8", "0.38"),
    ]


HOSTILE = r"50% of a_b & c#1 {x} $y$ ~^\z | <i> [k] *s* `t`"


def test_titles_are_escaped(score, tmp_path):
    rows = [RowSpec("sft", HOSTILE)]
    text = write(tmp_path, [score("sft", correct=80)], rows=rows, name=HOSTILE)
    row = lines_of(text)[2]
    assert len(re.findall(r"(?<!\\)\|", row)) == 7  # six columns
    assert r"\| &lt;i&gt; [k] \*s\* \`t\`" in row
    tex = (tmp_path / "table.tex").read_text()
    assert (
        r"50\% of a\_b \& c\#1 \{x\} \$y\$ \textasciitilde{}\textasciicircum{}\textbackslash{}z "
        r"\textbar{} \textless{}i\textgreater{} {[}k{]} *s* `t`"
    ) in tex
    ElementTree.parse(tmp_path / "table.svg")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(score, tmp_path):
    rows = [RowSpec("sft", HOSTILE), *ROWS[1:]]
    folders = [score("sft", correct=80), score("sft", correct=7, task="gsm8k")]
    write(tmp_path, [*folders, score("dpo", correct=79)], rows=rows, name=HOSTILE)
    (tmp_path / "page.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
    assert "Overfull" not in done.stdout


def test_latex_rows_have_one_cell_a_column(score, tmp_path):
    write(tmp_path, [score("sft", correct=80)])
    tex = (tmp_path / "table.tex").read_text()
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [5, 5, 5]
    assert r"\begin{tabular}{lrrrrr}" in tex


def test_a_table_without_any_result_shows_what_is_pending(tmp_path):
    text = write(tmp_path, [], dpo="running")
    assert lines_of(text)[2:4] == [
        "| SFT | pending | 87.4 | 0.23 |",
        "| + DPO | running | 86.2 | 6.37 |",
    ]
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_scores_of_no_row_are_named_and_not_dropped_in_silence(score, tmp_path):
    text = write(tmp_path, [score("sft", correct=80), score("extra", 3, correct=1)])
    assert "Scored, but no row of this table: extra (seed 3)." in text


def test_the_same_scores_give_the_same_bytes(score, tmp_path):
    folders = [score("sft", correct=80)]
    for out in ("one", "two"):
        write(tmp_path / out, folders)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_picture_is_a_png_that_is_wide_enough_to_read(score, tmp_path):
    write(tmp_path, [score("sft", correct=80)])
    content = (tmp_path / "table.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") > 1400


def test_a_file_that_cannot_be_made_leaves_the_old_ones(score, tmp_path, monkeypatch):
    folders = [score("sft", correct=80)]
    write(tmp_path / "out", folders)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(*_, **__):
        raise OSError("no fonts")

    monkeypatch.setattr("marco.reporting.table.picture", fail)
    with pytest.raises(OSError, match="no fonts"):
        write(tmp_path / "out", folders, dpo="failed")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_papers_numbers_are_all_there():
    paper = load_paper("step_by_step", column="if_other")
    assert len(paper.rows) == 6 and len(paper.columns) == 7
    assert all(set(row) == set(paper.columns) for row in paper.rows.values())
    # Checksums by hand over the printed GSM8K and MATH columns: accuracy, no answer.
    gsm8k, maths = ([row[name] for row in paper.rows.values()] for name in ("gsm8k", "math"))
    assert [sum(part) for part in zip(*gsm8k, strict=True)] == pytest.approx([521.9, 15.92])
    assert [sum(part) for part in zip(*maths, strict=True)] == pytest.approx([269.4, 113.0])


def test_the_papers_digits_are_those_in_print():
    rows = load_paper("step_by_step", column="math").rows
    assert [str(value) for value in rows["masked_joint"]["math"]] == ["51.0", "5.8"]
    assert str(rows["cdpo"]["aime"][1]) == "45"


def test_the_papers_alpha_figure_has_accuracies_only(score, tmp_path):
    paper = load_paper("alpha", column="gsm8k")
    sums = [sum(row[name][0] or 0 for row in paper.rows.values()) for name in paper.columns]
    # By hand, over the five values of each column.
    assert sums == pytest.approx([431.9, 243.6, 36.8, 342.1])
    rows = [RowSpec("alpha_0.5", "α = 0.5")]
    folders = [score("alpha_0.5", correct=80)]
    text = write(tmp_path, folders, rows=rows, paper="alpha", name="alpha")
    head, _, line = lines_of(text)
    assert head.endswith("| arithmetic no answer | paper GSM8K accuracy |")
    assert line.endswith("| 0.0 [0.0, 3.7] | 86.5 |")


def test_each_task_of_the_papers_has_its_own_column_beside_it(score, tmp_path):
    tasks = ("gsm8k", "multi_if zh", "multi_if", "blocksworld")
    folders = [score("sft", correct=80, task=task) for task in tasks]
    head, _, line, *_ = lines_of(write(tmp_path, folders, rows=ROWS[:1]))
    columns = zip(*(text.strip("| ").split(" | ") for text in (head, line)), strict=True)
    assert [column for column in columns if "paper" in column[0]] == [
        ("paper GSM8K accuracy", "87.4"),
        ("paper GSM8K no answer", "0.23"),
        ("paper IF Zh accuracy", "69.2"),
        ("paper IF Zh no answer", "0.77"),
        ("paper planning accuracy", "12.4"),
        ("paper planning no answer", "1.8"),
    ]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [line["paper_column"] for line in lines] == ["gsm8k", "if_zh", "", "planning"]


def test_unknown_paper_and_column_get_the_nearest_name():
    with pytest.raises(UserError, match="unknown paper table 'step-by-step'.*mean `step_by_step`"):
        load_paper("step-by-step", column="gsm8k")
    with pytest.raises(UserError, match="'gsm8': expected one of gsm8k, .* mean `gsm8k`"):
        load_paper("step_by_step", column="gsm8")


def test_command_line_collects_what_is_there(score, tmp_path, capsys):
    folder = score("dpo", correct=3)
    score("sft", correct=80)
    score("base", correct=1)
    arguments = [str(folder.parent), "--out", str(tmp_path / "out"), "--paper", "step_by_step"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in lines_of(printed)[2:]] == ["| base", "| sft", "| dpo"]
    assert (tmp_path / "out/table.md").read_text() == printed
    assert main([str(folder.parent), "--rows", "sft,joint"]) == 0
    printed = capsys.readouterr().out
    assert "| joint | pending | – | – |" in printed
    assert "no row of this table: base (seed 0), dpo (seed 0)" in printed


def test_command_line_tells_bad_input_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
