"""A finished folder of trees as generate.py leaves it, grown without a model."""

import json
from pathlib import Path

from marco.driver.scheduler import Scheduler
from marco.engines.journal import Journal, JournaledEngine
from marco.engines.scripted import ScriptedEngine
from marco.search.pattern import Kinds, Pattern
from marco.search.tree import Tree, write_trees

from ..search.searches import SETTINGS, drawn, problem, settings, starter

KEY = "k" * 64


def grow(
    folder: Path, pattern: Pattern, kinds: Kinds, *, problems: int = 8, counted: str = "distinct"
) -> list[Tree]:
    """Trees with their journal, config and manifest in `folder`."""
    (folder / "journal").mkdir(parents=True)
    journal = Journal(folder / "journal" / "worker-0.sqlite", run=KEY)
    changes = {"wave": 3, "count": counted}
    asked = [problem(i) for i in range(problems)]
    engine = JournaledEngine(ScriptedEngine(drawn(0)), journal)
    scheduler = Scheduler(starter(pattern, kinds, settings(**changes)), {"teacher": engine})
    placed = scheduler.run(enumerate(asked), on_response=lambda *_: None)
    trees = [tree for _, tree in sorted(placed, key=lambda one: one[0])]
    journal.close()
    write_trees(folder / "trees.jsonl", trees)
    sections = {
        "search": SETTINGS | changes,
        "pattern": pattern.model_dump(),
        "kinds": {name: kind.model_dump() for name, kind in kinds.items()},
        "models": {"roles": dict.fromkeys(kinds, "teacher")},
        "search_seed": 0,
    }
    task = {
        "response_tokens": 512,
        "name": "arithmetic",
        "train": 8,
        "validation": 1,
        "test": 1,
        "problem_seed": 0,
        "shots": 0,
    }
    order = {
        "kind": "trees",
        "key": KEY,
        "config": sections,
        "inputs": {},
        "labels": {"task": task},
    }
    (folder / "config.yaml").write_text(json.dumps(order | {"cluster": {}}), encoding="utf-8")
    write_manifest(folder, "trees", KEY, {})
    return trees


def write_manifest(folder: Path, stage: str, key: str, inputs: dict[str, str]) -> None:
    entries = {name: {"path": "", "key": key} for name, key in inputs.items()}
    manifest = {"schema": 1, "stage": stage, "key": key, "inputs": entries, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
