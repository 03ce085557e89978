"""Evaluate a student: accuracy and no-answer ratio with intervals, and every sample on disk.

python evaluate.py student=<folder or name> tasks=[arithmetic]
"""

from pathlib import Path

from marco import cli, pipeline
from marco.config import Config
from marco.experiment import score


def evaluate(config: Config, overrides: list[str]) -> None:
    model = Path(config.student.model)
    student = pipeline.student(config)
    stage = pipeline.scores(config, student, row=model.name if model.is_dir() else None)
    print(f"scores: {score(config, stage, trained=student)}")


if __name__ == "__main__":
    cli.run(evaluate, config_name="evaluate")
