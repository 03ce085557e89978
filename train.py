"""Train a row, or a table of them: trees, datasets, SFT, preference training, evaluation.

python train.py recipe=masked_joint student=smollm2_135m
python train.py experiments=step_by_step
"""

from marco import cli
from marco.config import Config
from marco.sweep import run_row


def train(config: Config, job: cli.Job) -> None:
    scores = run_row(config, job)
    print(f"scores of {config.recipe.title!r}: {scores}")


if __name__ == "__main__":
    cli.run(train, config_name="train")
