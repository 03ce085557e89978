"""train.py with the stages of tests/cheap_stages.py: python -m tests.cheap_train <overrides>."""

import train
from marco import cli, processes, sweep
from marco.config import Config
from marco.reporting import table
from tests import cheap_stages


def no_picture(*_: object, **__: object) -> bytes:
    return b""


def no_figures(*_: object) -> tuple[dict[str, bytes], dict[str, str]]:
    return {}, {}


table.picture, table.draw_figures = no_picture, no_figures


def cheap(config: Config, job: cli.Job) -> None:
    """In whichever process the launcher puts it: the import is what replaces the stages."""
    processes.PRELOAD[:] = [cheap_stages.__name__]
    train.train(config, job)


if __name__ == "__main__":
    cli.run(cheap, config_name="train", at_end=sweep.show_tables)
