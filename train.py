"""Train a row, or a table of them: trees, datasets, SFT, preference training, evaluation.

python train.py recipe=masked_joint student=smollm2_135m
python train.py experiments=step_by_step
"""

from marco import cli
from marco.config import Config
from marco.experiment import run_row


def train(config: Config, overrides: list[str]) -> None:
    scores = run_row(config, overrides=overrides)
    print(f"scores of {config.recipe.title!r}: {scores}")


if __name__ == "__main__":
    cli.run(train, config_name="train")
