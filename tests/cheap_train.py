"""train.py with the stages of tests/cheap_stages.py: python -m tests.cheap_train <overrides>."""

import train
from marco import cli, stages
from marco.reporting import table
from tests import cheap_stages

stages.PRELOAD[:] = [cheap_stages.__name__]


def no_picture(*_: object, **__: object) -> bytes:
    return b""


table.picture = no_picture

if __name__ == "__main__":
    cli.run(train.train, config_name="train")
