"""The examples of the documentation, whole: a copy of the project, the page's files, its commands.

The scripts run on the scripted engine with a student of a few thousand parameters.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from marco.config import ROOT
from marco.search.tree import read_trees

from ..training.conftest import save_tiny
from .pages import Block, read_page, write_block

pytestmark = pytest.mark.slow

COPIED = ["conf", "docs", "experiments", "marco", "tests", "pyproject.toml"]
COPIED += ["generate.py", "train.py", "evaluate.py", "README.md"]
# In place of `python`: a script gets what makes it fast, where its line does not say otherwise.
PYTHON = """#!{python}
import os, sys
arguments = sys.argv[1:]
if arguments and arguments[0] in ("generate.py", "train.py", "evaluate.py"):
    said = {{argument.split("=")[0] for argument in arguments}}
    arguments += [o for o in {overrides!r} if o.split("=")[0] not in said]
os.execv({python!r}, [{python!r}, *arguments])
"""


def sections(name: str) -> dict[str, list[Block]]:
    """The blocks of each section of a page that has something to run."""
    found: dict[str, list[Block]] = {}
    for block in read_page(ROOT / "docs" / name, name=name).blocks:
        found.setdefault(block.section, []).append(block)
    return {s: blocks for s, blocks in found.items() if any("run" in b.marks for b in blocks)}


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("student"), LlamaConfig, LlamaForCausalLM)


@pytest.fixture
def run(tmp_path, student):
    """Writes and runs blocks in a copy of the project; returns the copy, and what was printed."""
    project, programs = tmp_path / "project", tmp_path / "bin"
    programs.mkdir()
    leave = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, symlinks=True, ignore=leave)
        else:
            shutil.copy(ROOT / name, project / name)
    overrides = ["engine=scripted", "logger=none", f"student={student}", "cluster.threads=1"]
    overrides += [f"models.checkpoints.main.model={student}", "trainer.samples.every_steps=0"]
    (programs / "python").write_text(PYTHON.format(python=sys.executable, overrides=overrides))
    (programs / "python").chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "MARCO_OUTPUTS"}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "WANDB_MODE": "disabled"}
    environment["CI"] = "1"  # or hypothesis fails what is slow on a busy machine

    def run(blocks: list[Block]) -> tuple[Path, str]:
        for block in blocks:
            if block.title:
                write_block(block, project)
        script = "\n".join(block.text for block in blocks if "run" in block.marks)
        done = subprocess.run(
            ["bash", "-exc", script],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return project, done.stdout

    return run


def finished(project: Path, stage: str) -> list[Path]:
    """The finished folders of a stage, by name."""
    folders = (path.parent for path in (project / "outputs" / stage).glob("*/manifest.json"))
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def kinds_of(project: Path, pattern: str) -> set[str]:
    """The kinds of all nodes of the trees that were grown in a pattern."""
    trees = [tree for folder in finished(project, "trees") for tree in read_trees(folder)]
    return {node.kind for tree in trees if tree.pattern == pattern for node in tree.nodes}


def test_a_pattern_and_a_kind(run):
    project, _ = run(sections("adding.md")["A pattern"])
    kinds = {"prompt", "hypothesis", "thinking", "double_check", "answer"}
    assert kinds_of(project, "guess_and_check") == kinds
    kinds = {"prompt", "estimate", "thinking", "answer"}
    assert kinds_of(project, "estimate_first") == kinds


def test_a_task(run):
    project, told = run(sections("adding.md")["A task"])
    figures = json.loads((project / "graded" / "results.json").read_text())["tasks"]["remainder"]
    assert (figures["n"], figures["accuracy"], figures["no_answer"]) == (2, 0.5, 0.5)
    assert "5 passed" in told, told  # four of its own file, one that composes its config
    assert len(finished(project, "dataset")) == 2


def test_a_loss(run):
    project, _ = run(sections("adding.md")["A loss"])
    students = [folder.name.split("-")[0] for folder in finished(project, "student")]
    assert students == ["exponential", "exponential", "sft"]
    assert len(finished(project, "trees")) == 1


def test_a_row_and_a_table(run):
    project, told = run(sections("adding.md")["A row, and a table of rows"])
    (table,) = (project / "outputs" / "table").glob("*/table.md")
    text = table.read_text()
    assert text.index("SFT") < text.index("joint loss, longest pairs") < text.index("+ joint loss")
    assert "pending" not in text and "failed" not in text
    assert told.count("joint loss, longest pairs") >= 2, told


def test_the_tutorial(run):
    blocks = [block for found in sections("tutorial.md").values() for block in found]
    project, told = run(blocks)
    assert "accuracy: A " in told and "McNemar" in told, told
    # The table found its three rows: one tree search, one baseline, two rates of nothing else.
    assert len(finished(project, "trees")) == 1 and len(finished(project, "student")) == 3
    assert len(finished(project, "scores")) == 4
    (table,) = (project / "outputs" / "table").glob("*/table.md")
    assert "pending" not in table.read_text() and "failed" not in table.read_text()
    cards = [(f / "README.md").read_text() for f in finished(project, "student")]
    assert any("| arithmetic | test | greedy | 100 |" in card for card in cards), cards
