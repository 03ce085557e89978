"""One W&B run per row: opened, fed and closed so that it can never cost the row its work."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from marco.reporting.allowlist import allowed
from marco.reporting.config import LoggerConfig

STEP = "trainer/global_step"
MODES = ("online", "offline", "disabled")


class Run:
    """The W&B run of one row, as a context manager; closed however the row ends.

    `folder` holds the run's files (in `wandb/`), `experiment` is the group, `row` and `seed` name
    the run, and of `settings` (the resolved config) only what `allowed` lets pass is logged. Any
    failure of W&B is told in one line and ends the logging, never the row. Nothing starts for
    logger `none` or mode `disabled`.
    """

    def __init__(
        self,
        config: LoggerConfig,
        *,
        folder: Path,
        experiment: str,
        row: str,
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.config, self.folder = config, folder
        self.experiment, self.row, self.seed = experiment, row, seed
        self.settings = allowed(settings, sections=config.sections)
        self._run: Any = None

    def __enter__(self) -> "Run":
        mode = mode_of(self.config)
        if mode == "disabled":
            return self
        self._guarded("start", lambda: self._start(mode))
        if self._run is None and mode == "online":
            self._guarded("start offline", lambda: self._start("offline"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run = self._run
        if run is not None:
            self._guarded("finish", lambda: run.finish(exit_code=0 if kind is None else 1))
        self._run = None

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log metrics at the trainer's global step (W&B's own counter is left alone)."""
        if self._run is not None:
            line = {**metrics, STEP: step}
            self._guarded("log", lambda: self._run.log(line))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Set the run's final figures; nested mappings become names joined by `/`."""
        if self._run is not None:
            self._guarded("write the summary", lambda: self._run.summary.update(_flat(metrics)))

    def _start(self, mode: str) -> None:
        import wandb  # slow to import, and not needed where nothing is logged

        self.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            group=self.experiment,
            name=f"{self.row}-seed{self.seed}",
            job_type=self.row,
            dir=self.folder,
            config=self.settings,
            mode=mode,  # pyright: ignore[reportArgumentType]
            reinit="create_new",
            settings=_private(wandb.Settings, finish_s=self.config.finish_s),
        )
        self._run = run
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)

    def _guarded(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # whatever W&B raises, the row's work goes on
            first = (str(error).splitlines() or [""])[0]
            print(f"W&B could not {what}: {type(error).__name__}: {first}", flush=True)
            if what == "log":
                self._guarded("finish", self._run.finish)
                self._run = None


def mode_of(config: LoggerConfig) -> str:
    """The W&B mode: the config's, or for `auto` that of WANDB_MODE, else online only with a key."""
    if config.mode != "auto":
        return config.mode
    told = os.environ.get("WANDB_MODE", "")
    if told in MODES:
        return told
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def _private(settings: Callable[..., Any], *, finish_s: float) -> Any:
    """Settings that keep from W&B what it collects by itself: the command line with its overrides
    (keys may be among them), git remotes, code, host, installed packages, the terminal's output.
    """
    return settings(
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        console="off",
        host="",
        silent=True,
        login_timeout=30,  # seconds; a prompt for a key must not hold up a table over night
        symlink=False,  # to the latest run: no use here
        finish_timeout=finish_s,
        finish_timeout_raises=False,
    )


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float) and math.isfinite(value):
            flat[f"{prefix}{name}"] = value
        elif isinstance(value, list | tuple) and len(value) == 2:  # an interval
            flat |= _flat({f"{name}_low": value[0], f"{name}_high": value[1]}, prefix)
    return flat
