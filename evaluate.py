"""Evaluate a student: accuracy and no-answer ratio with intervals, and every sample on disk.

python evaluate.py student=<folder or name> tasks=[arithmetic]
"""

from marco import cli, pipeline
from marco.config import Config
from marco.stages import materialise


def evaluate(config: Config, overrides: list[str]) -> None:
    student = pipeline.student(config)
    scores = materialise(pipeline.scores(config, student, experiment="evaluate"), config.outputs)
    print(f"scores: {scores}")


if __name__ == "__main__":
    cli.run(evaluate, config_name="evaluate")
