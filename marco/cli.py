"""What the three scripts share: Hydra, the check of the config, errors as one line."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marco import processes
from marco.config import ROOT, Config, check
from marco.errors import UserError
from marco.reporting.allowlist import credentials

ERROR = "error.txt"  # in the folder of a job: why it failed
LAUNCHERS = {"joblib", "submitit", "ray"}  # what starts the jobs of a multirun elsewhere


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a config was asked for: its overrides, and of an experiment what it sweeps by itself.

    `row` names a row of its table, not yet filled in. `folder` is Hydra's for the job: what a
    launcher's process leaves there, the script finds.
    """

    overrides: tuple[str, ...]
    folder: Path
    row: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    is_sweep: bool = False


class RunFolder(Callback):
    """Keeps where Hydra puts the run, with the folders of its jobs, wherever those have run."""

    path: ClassVar[Path | None] = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._keep(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        # Hydra writes it down, with what its files say; of callbacks' exceptions it only warns.
        with _told_at_once():
            _refuse_credentials(OmegaConf.to_container(config, resolve=False))
        self._keep(config.hydra.sweep.dir)

    def _keep(self, folder: str) -> None:
        RunFolder.path = Path(folder).absolute()
        for error in left_by_jobs(RunFolder.path, ERROR):  # of an earlier run, told to go there too
            error.unlink()


def left_by_jobs(run: Path, name: str) -> list[Path]:
    """The files of that name which a run, or the jobs of a multirun, have left in their folders."""
    return sorted([*run.glob(name), *run.glob(f"*/{name}")])


def run(
    script: Callable[[Config, Job], None],
    *,
    config_name: str,
    at_end: Callable[[Path], None] | None = None,
) -> None:
    """Compose the config, check it, and call `script` with it and how it was asked for.

    In a multirun the other jobs still run where one fails, wherever the launcher puts them.
    `at_end` is called once, with Hydra's folder of the run (`left_by_jobs`). Exit code 2 for bad
    input and failed jobs, told in a line.
    """
    with _told_at_once():
        for argument in sys.argv[1:]:
            name, _, value = argument.partition("=")
            _refuse_credentials({name.lstrip("+~"): value} if value else {"": name})
    sys.argv[1:] = [_student_folder(argument) for argument in sys.argv[1:]]
    sys.argv[1:] = [part for argument in sys.argv[1:] for part in argument.split("\0")]

    @hydra.main(config_path=str(ROOT / "conf"), config_name=config_name, version_base="1.3")
    def job(cfg: DictConfig) -> None:
        run_config = HydraConfig.get()
        folder = Path(run_config.runtime.output_dir)
        try:
            config = check(cfg, run_config.runtime.choices)
            _refuse_credentials(config.model_dump(mode="json"))
            if config.engine.name == "scripted":  # nothing heavy that stages could share
                processes.PRELOAD.clear()
            script(
                config,
                Job(
                    overrides=tuple(run_config.overrides.task),
                    folder=folder,
                    row=row_of_table(cfg),
                    params=params_of_sweep(run_config),
                    is_sweep=run_config.mode == RunMode.MULTIRUN,
                ),
            )
        except UserError as error:
            (folder / ERROR).write_text(f"{error}\n", encoding="utf-8")
            print(f"error: {error}", file=sys.stderr, flush=True)

    wants_trace = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints a trace of its own, for a full disk too
    RunFolder.path = None
    try:
        try:
            job()
        finally:
            if RunFolder.path and at_end:
                at_end(RunFolder.path)
    except Exception as error:
        if wants_trace or not _is_persons(error):
            raise
        print(f"error: {_told(error)}", file=sys.stderr, flush=True)
        sys.exit(2)
    if RunFolder.path and (failed := left_by_jobs(RunFolder.path, ERROR)):
        if failed[0].parent != RunFolder.path:
            told = f"{len(failed)} failed: see {RunFolder.path}/*/{ERROR}"
            print(f"error: {told}", file=sys.stderr, flush=True)
        sys.exit(2)


def row_of_table(cfg: DictConfig) -> str:
    """How a config names a row of its table, with the keys in it; "" without a table."""
    whole: Any = OmegaConf.to_container(cfg, resolve=False)
    return str(whole["table"]["row"]) if whole.get("table") else ""


def params_of_sweep(hydra_config: Any) -> dict[str, str]:
    """The overrides that an experiment sweeps by itself: values by key, as in its file."""
    return {str(key): str(value) for key, value in (hydra_config.sweeper.params or {}).items()}


@contextmanager
def _told_at_once() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def _refuse_credentials(values: Any) -> None:
    """UserError where a value is a password, a token or a key: configs are written down."""
    if found := sorted(set(credentials(values))):
        named = ", ".join(filter(None, found)) or "an argument"
        raise UserError(
            f"{named}: carries a password, token or key, which would stand in every config and "
            "log. Give keys by the environment (OPENAI_API_KEY, HF_TOKEN, WANDB_API_KEY)"
        )


def _is_persons(error: Exception) -> bool:
    """Whether an error is for the person to mend, or of a launcher whose job was ended."""
    known = (UserError, HydraException, OmegaConfBaseException, OSError)
    return isinstance(error, known) or type(error).__module__.split(".")[0] in LAUNCHERS


def _told(error: Exception) -> str:
    """What Hydra or the system says; for a folder that cannot be written, which one."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return f"{error.filename or 'output'}: {error.strerror or error}"
    cause = error.__cause__
    return f"{error}\n{cause}" if isinstance(cause, OmegaConfBaseException) else str(error)


def _student_folder(argument: str) -> str:
    """`student=FOLDER` as the choice `student=folder` with its path."""
    name, _, value = argument.partition("=")
    if name != "student" or not Path(value).is_dir():
        return argument
    return f"student=folder\0student.model={Path(value).absolute()}"
