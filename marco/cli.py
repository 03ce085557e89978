"""What the three scripts share: Hydra, the check of the config, errors as one line."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from marco import stages
from marco.config import ROOT, Config, check
from marco.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a config was asked for: its overrides, and in a multirun the keys that it sweeps."""

    overrides: tuple[str, ...]
    swept: frozenset[str] = frozenset()
    is_sweep: bool = False


def run(script: Callable[[Config, Job], None], *, config_name: str) -> None:
    """Compose the config, check it, and call `script` with it and how it was asked for.

    Exit code 2 for bad input, told in one line; in a multirun the other rows still run.
    """
    sys.argv[1:] = [_student_folder(argument) for argument in sys.argv[1:]]
    sys.argv[1:] = [part for argument in sys.argv[1:] for part in argument.split("\0")]
    failed: list[str] = []

    @hydra.main(config_path=str(ROOT / "conf"), config_name=config_name, version_base="1.3")
    def job(cfg: DictConfig) -> None:
        run_config = HydraConfig.get()
        try:
            config = check(cfg, run_config.runtime.choices)
            if config.engine.name == "scripted":  # nothing heavy that stages could share
                stages.PRELOAD.clear()
            script(
                config,
                Job(
                    overrides=tuple(run_config.overrides.task),
                    swept=frozenset(run_config.sweeper.get("params") or {}),
                    is_sweep=run_config.mode == RunMode.MULTIRUN,
                ),
            )
        except UserError as error:
            failed.append(str(error))
            print(f"error: {error}", file=sys.stderr, flush=True)

    wants_trace = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints a trace of its own, for a full disk too
    try:
        job()
    except (HydraException, OmegaConfBaseException, OSError) as error:
        if wants_trace:
            raise
        failed.append(_told(error))
        print(f"error: {failed[-1]}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(2)


def _told(error: Exception) -> str:
    """What Hydra or the system says; for a folder that cannot be written, which one."""
    if isinstance(error, OSError):
        return f"{error.filename or 'output'}: {error.strerror or error}"
    cause = error.__cause__
    return f"{error}\n{cause}" if isinstance(cause, OmegaConfBaseException) else str(error)


def _student_folder(argument: str) -> str:
    """`student=FOLDER` as the choice `student=folder` with its path."""
    name, _, value = argument.partition("=")
    if name != "student" or not Path(value).is_dir():
        return argument
    return f"student=folder\0student.model={Path(value).absolute()}"
