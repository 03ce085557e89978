"""Runs a row: its stages in order, then the table of its experiment from what is on disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from marco import pipeline
from marco.config import ROOT, Config
from marco.errors import UserError
from marco.stages import materialise

SWEPT = ("recipe=", "seed=", "experiments=")


def run_row(config: Config, *, overrides: Sequence[str], experiment: str) -> Path:
    """Train and evaluate a recipe's student, and write the experiment's table anew if it has one.

    A row that fails is told in the table, and raises UserError after the table is written.
    """
    if config.table is not None and config.recipe.name in config.table.rows:
        place = config.table.rows.index(config.recipe.name) + 1
        row = f"{config.recipe.title} (seed {config.seed})"
        print(f"row {place}/{len(config.table.rows)}: {row}", flush=True)
    record: dict[str, Any] = {"recipe": config.recipe.name, "seed": config.seed}
    try:
        scores = materialise(
            pipeline.scores(config, pipeline.student(config), experiment=experiment), config.outputs
        )
    except UserError as error:
        _tabulate(config, record | {"failed": str(error)}, overrides)
        raise
    _tabulate(config, record | {"scores": str(scores)}, overrides)
    return scores


def _tabulate(config: Config, record: dict[str, Any], overrides: Sequence[str]) -> None:
    """Keep the row's record, and print the table of all rows that have one.

    The rows of a multirun find each other by their command line without what is swept.
    """
    if config.table is None:
        return
    from marco.reporting.table import write_table

    shared = sorted(o for o in overrides if not o.startswith(SWEPT))
    key = hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:8]
    out = config.outputs / "table" / f"{config.table.name}-{key}"
    (out / "rows").mkdir(parents=True, exist_ok=True)
    name = f"{record['recipe']}-s{record['seed']}.json"
    _replace(out / "rows" / name, json.dumps(record | {"overrides": shared}, indent=1) + "\n")
    records = [json.loads(p.read_text()) for p in sorted((out / "rows").glob("*.json"))]
    text = write_table(
        name=config.table.name,
        rows=_rows(config.table.rows),
        folders=[Path(r["scores"]) for r in records if "scores" in r],
        out=out,
        paper=config.table.paper,
        paper_column=config.table.paper_column,
        status={r["recipe"]: "failed" for r in records if "failed" in r},
    )
    if record["recipe"] == config.table.rows[-1]:
        print(f"\n{text}\ntable: {out}", flush=True)


def _rows(recipes: Sequence[str]) -> list[Any]:
    from marco.reporting.table import RowSpec

    rows = []
    for recipe in recipes:
        path = ROOT / "conf" / "recipe" / f"{recipe}.yaml"
        if not path.is_file():
            raise UserError(f"table.rows: there is no conf/recipe/{recipe}.yaml")
        rows.append(RowSpec(recipe, OmegaConf.load(path).recipe.title))
    return rows


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
