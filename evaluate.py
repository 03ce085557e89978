"""Evaluate a student: accuracy and no-answer ratio with intervals, and every sample on disk.

python evaluate.py student=<folder or name> tasks=[arithmetic]
python evaluate.py tasks=[math] problems=FILE.jsonl responses=FILE.jsonl  # grade what is there
"""

from pathlib import Path

from marco import cli, pipeline
from marco.config import Config
from marco.experiment import grade, score


def evaluate(config: Config, _: cli.Job) -> None:
    if config.responses is not None:
        scores = grade(config, pipeline.grades(config))
    else:
        model = Path(config.student.model)
        student = pipeline.student(config)
        stage = pipeline.scores(config, student, row=model.name if model.is_dir() else None)
        scores = score(config, stage)
    print(f"scores: {scores}")


if __name__ == "__main__":
    cli.run(evaluate, config_name="evaluate")
