"""Runs what a config asks for: a row with its stages in order, or the grading of responses."""

from pathlib import Path

from marco import pipeline, processes
from marco.config import Config
from marco.disk import replace_text
from marco.errors import UserError
from marco.reporting.row_log import ALONE, logged
from marco.stages import Stage, materialise


def make_row(config: Config, *, group: str = ALONE) -> Path:
    """The scores of a recipe's student, with all that they stand on; `group` is the sweep's."""
    if config.recipe.trains:
        pipeline.check_contamination(config)
    return score(config, pipeline.scores(config, pipeline.student(config)), group=group)


def score(config: Config, stage: Stage, *, group: str = ALONE) -> Path:
    """The finished scores of a student; the row is logged while its stages are made."""
    with logged(config, stage, group=group):
        scores = materialise(stage, config.outputs, cluster=config.cluster.model_dump())
    return _where_wanted(scores, config.output_dir)


def grade(config: Config, stage: Stage) -> Path:
    """The finished scores of responses that were there."""
    processes.PRELOAD.clear()  # no model: nothing heavy
    scores = materialise(stage, config.outputs, cluster=config.cluster.model_dump())
    return _where_wanted(scores, config.output_dir)


def _where_wanted(scores: Path, wanted: Path | None) -> Path:
    """The scores, copied to where the person says."""
    if wanted is None:
        return scores
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        for name in ("samples.jsonl", "results.json"):
            replace_text(wanted / name, (scores / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"output_dir={wanted}: {error.strerror or error}") from error
    return wanted
