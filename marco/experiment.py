"""Runs a row: its stages in order, then the table of its experiment from what is on disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from marco import pipeline, stages
from marco.config import ROOT, Config
from marco.errors import UserError
from marco.stages import Stage, materialise, without_volatile

SWEPT = ("recipe=", "seed=", "experiments=")


def run_row(config: Config, *, overrides: Sequence[str]) -> Path:
    """Train and evaluate a recipe's student, log the row, and write the table it belongs to anew.

    A row that fails is told in the table, and raises UserError after the table is written.
    """
    if config.table is not None and config.recipe.name in config.table.rows:
        place = config.table.rows.index(config.recipe.name) + 1
        row = f"{config.recipe.title} (seed {config.seed})"
        print(f"row {place}/{len(config.table.rows)}: {row}", flush=True)
    try:
        if config.recipe.trains:
            pipeline.check_contamination(config)
        trained = pipeline.student(config)
        scores = score(config, pipeline.scores(config, trained), trained=trained)
    except UserError as error:
        _tabulate(config, {"failed": str(error)}, overrides)
        raise
    _tabulate(config, {"scores": str(scores)}, overrides)
    return scores


def score(config: Config, stage: Stage, *, trained: Stage | None) -> Path:
    """The finished scores of a student, and its run in W&B."""
    from marco.reporting.row_log import log_row

    scores = materialise(stage, config.outputs, cluster=config.cluster.model_dump())
    log_row(
        config,
        experiment=config.table.name if config.table else "rows",
        row=stage.config["row"],
        scores=scores,
        student=trained.folder(config.outputs) if trained else None,
    )
    return _where_wanted(scores, config.output_dir)


def grade(config: Config, stage: Stage) -> Path:
    """The finished scores of responses that were there."""
    stages.PRELOAD.clear()  # no model: nothing heavy
    scores = materialise(stage, config.outputs, cluster=config.cluster.model_dump())
    return _where_wanted(scores, config.output_dir)


def _where_wanted(scores: Path, wanted: Path | None) -> Path:
    """The scores, copied to where the person says."""
    if wanted is None:
        return scores
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        for name in ("samples.jsonl", "results.json"):
            _replace(wanted / name, (scores / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"output_dir={wanted}: {error.strerror or error}") from error
    return wanted


def _tabulate(config: Config, outcome: dict[str, str], overrides: Sequence[str]) -> None:
    """Keep the row's record, and print the table of all rows that have one.

    The rows of a multirun find each other by their command line without what is swept. A recipe
    whose settings have changed since its other seeds ran starts anew: seeds of different settings
    are not averaged.
    """
    if config.table is None:
        return
    from marco.reporting.table import write_table

    shared = sorted(o for o in overrides if not o.startswith(SWEPT))
    out = config.outputs / "table" / f"{config.table.name}-{_hash(shared)}"
    settings = without_volatile(
        config.model_dump(mode="json", exclude={"seed", "outputs", "table"})
    )
    record = {
        "recipe": config.recipe.name,
        "seed": config.seed,
        "overrides": shared,
        "settings": _hash([settings, pipeline.REVISIONS]),
    }
    try:
        (out / "rows").mkdir(parents=True, exist_ok=True)
        name = f"{record['recipe']}-s{record['seed']}.json"
        _replace(out / "rows" / name, json.dumps(record | outcome, indent=1) + "\n")
        records = _records(out / "rows", like=record)
        text = write_table(
            name=config.table.name,
            rows=_rows(config.table.rows),
            folders=[Path(r["scores"]) for r in records if "scores" in r],
            out=out,
            paper=config.table.paper,
            paper_column=config.table.paper_column,
            status={r["recipe"]: "failed" for r in records if "failed" in r},
        )
    except OSError as error:
        raise UserError(f"cannot write the table {out}: {error.strerror or error}") from error
    if record["recipe"] == config.table.rows[-1]:
        print(f"\n{text}\ntable: {out}", flush=True)


def _records(folder: Path, *, like: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows' records, without those of other settings of the recipe, and of deleted scores."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [
        r
        for r in records
        if (r["recipe"] != like["recipe"] or r["settings"] == like["settings"])
        and ("scores" not in r or Path(r["scores"]).is_dir())
    ]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _rows(recipes: Sequence[str]) -> list[Any]:
    from marco.reporting.table import RowSpec

    rows = []
    for recipe in recipes:
        path = ROOT / "conf" / "recipe" / f"{recipe}.yaml"
        rows.append(RowSpec(recipe, OmegaConf.load(path).recipe.title))
    return rows


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
