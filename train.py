"""Train a row, or a table of them: trees, datasets, SFT, preference training, evaluation.

python train.py recipe=masked_joint student=smollm2_135m
python train.py experiments=step_by_step
"""

from marco import cli, pipeline
from marco.cards import hub
from marco.config import Config
from marco.sweep import run_row, show_tables


def train(config: Config, job: cli.Job) -> None:
    if config.push_to_hub:
        hub.check_access(config.push_to_hub)
    scores = run_row(config, job)
    print(f"scores of {config.recipe.title!r}: {scores}")
    if config.push_to_hub and (student := pipeline.student(config)):
        for commit in hub.push_with_datasets(student.folder(config.outputs), config.push_to_hub):
            print(f"pushed: {commit}")


if __name__ == "__main__":
    cli.run(train, config_name="train", at_end=show_tables)
