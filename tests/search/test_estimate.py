"""What a search would cost, told from a sample: against what it did cost."""

import json
from pathlib import Path
from typing import Any

import pytest

from marco.pipeline import trees
from marco.search.estimate import estimate, estimate_lines
from marco.search.grow import grow
from marco.search.tree import read_trees
from marco.tasks.registry import make_task

from ..test_config import checked


@pytest.fixture
def places(tmp_path: Path, embedded_folder: Path) -> Any:
    def places(name: str) -> dict[str, Any]:
        out = tmp_path / name
        out.mkdir()
        cluster = {"name": "local", "threads": None}
        return {"cluster": cluster, "run": name, "out": out, "models": embedded_folder.parent}

    return places


def test_the_estimate_holds_what_the_whole_search_costs(places: Any) -> None:
    config = checked("engine=scripted", "task.train=60", name="generate")
    values, task = config.model_dump(mode="json"), config.task.model_dump(mode="json")
    problems = make_task(config.task).problems("train")
    at_a_sample = places("sample")
    result = estimate(values, task, problems, sample=20, confidence=0.99, **at_a_sample)
    assert json.loads((at_a_sample["out"] / "estimate.json").read_text()) == result
    sample = list(read_trees(at_a_sample["out"]))
    assert (len(sample), result["sample"], result["problems"]) == (20, 20, 60)
    assert result["requests"]["total"] == round(sum(t.usage["requests"] for t in sample) / 20 * 60)

    whole = places("whole")
    grow(values, task, problems, **whole)
    cost = [tree.usage for tree in read_trees(whole["out"])]
    for name, key in (("requests", "requests"), ("generated_tokens", "completion_tokens")):
        low, high = result[name]["interval"]
        assert low <= sum(usage[key] for usage in cost) <= high
    assert "estimate for 60 problems, from 20 of them:" in estimate_lines(at_a_sample["out"])


def test_a_dry_run_is_no_other_search() -> None:
    """The same trees are asked for, whether they were estimated before or not."""
    plain, dry = (
        trees(checked()),
        trees(checked("search.dry_run=true", "search.dry_run_problems=3")),
    )
    assert plain.key == dry.key  # type: ignore[union-attr]
