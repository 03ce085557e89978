"""Runs in Weights & Biases, online or kept on this machine for `wandb sync`."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from wandb.util import get_core_path

from marco.reporting.allowlist import Redactor
from marco.reporting.config import WandbConfig
from marco.reporting.loggers.protocol import STEP, Artifact, RunInfo

MODES = ("online", "offline", "disabled")
LONGEST_TAG, LONGEST_NAME = 64, 128  # characters; W&B refuses more
FLUSH_S = 1.0  # what a killed run may lose; W&B's own is 15 s


class WandbRun:
    """A run of W&B's. Curves have axes of their own, so W&B's counter of steps means nothing."""

    def __init__(self, run: Any, *, last_step: int, on_lost: Callable[[], None]) -> None:
        self.run, self.last_step, self.on_lost = run, last_step, on_lost
        self.is_open = True
        self.defined: set[str] = set()

    def log(self, metrics: Mapping[str, float], *, step: int, axis: str = STEP) -> None:
        if axis not in self.defined:
            self.run.define_metric(axis)
        for name in metrics.keys() - self.defined:
            self.run.define_metric(name, step_metric=axis)
        self.defined |= {axis, *metrics}
        self.run.log({**metrics, axis: step})

    def summary(self, figures: Mapping[str, float | str]) -> None:
        self.run.summary.update(dict(figures))

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            cells: list[Any] = [[_cell(value) for value in row.values()] for row in rows]
            self.run.log({"samples": wandb.Table(columns=list(rows[0]), data=cells)})

    def pages(self, pages: Mapping[str, str]) -> None:
        if pages:
            # Not injected: W&B would add a style sheet from its own server.
            self.run.log({"trees": [wandb.Html(page, inject=False) for page in pages.values()]})

    def lineage(self, output: Artifact, inputs: Sequence[Artifact]) -> None:
        # An artifact of the same content is the same version, whichever run logs it: what one run
        # made, the other uses. `use_artifact` would wait for the server, and fail offline.
        for one in inputs:
            self.run._log_artifact(
                _artifact(one), aliases=_aliases(one), is_user_created=True, use_after_commit=True
            )
        self.run.log_artifact(_artifact(output), aliases=_aliases(output))

    def close(self, *, failed: bool) -> None:
        self.is_open = False
        try:
            self.run.finish(exit_code=int(failed))
        except TimeoutError:
            self.on_lost()
            raise


class WandbLogger:
    """The logger `wandb`; a server that cannot be reached is not asked again, and runs stay here.

    A quarter of `finish_s` is waited for the server at the start of a run, and for uploads at its
    end.
    """

    def __init__(self, config: WandbConfig) -> None:
        self.config, self.mode = config, mode_of(config)
        self.open: list[WandbRun] = []
        self.is_blocked = False

    def start(self, run: RunInfo) -> WandbRun:
        """Open a run; ConnectionError where it has to wait until the open ones are closed."""
        self.open = [one for one in self.open if one.is_open]
        if self.mode == "online":
            try:
                return self._opened(run, "online")
            except Exception as error:  # no key, no server, no right to write there
                self.mode, self.is_blocked = "offline", True
                told = Redactor({})(str(error)).splitlines() or [type(error).__name__]
                print(f"W&B could not start online, runs stay here: {told[0]}", flush=True)
        if self.is_blocked:  # W&B's process still holds the run's id
            if self.open:
                raise ConnectionError("W&B was lost; told when the row has ended")
            wandb.teardown()
            self.is_blocked = False
        return self._opened(run, "offline")

    def _opened(self, info: RunInfo, mode: str) -> WandbRun:
        info.folder.mkdir(parents=True, exist_ok=True)
        before = _last_step(info.folder) if mode == "offline" else 0
        run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            id=info.id,
            resume="allow",
            group=info.group,
            job_type=info.job_type,
            name=info.name[:LONGEST_NAME],
            tags=[tag[:LONGEST_TAG] for tag in info.tags],
            dir=info.folder,
            config=dict(info.config),
            mode=mode,  # pyright: ignore[reportArgumentType]
            reinit="create_new",
            settings=_private(self.config.finish_s / 4),
        )
        last = before if mode == "offline" else int(run.summary.get(STEP) or 0)
        self.open.append(WandbRun(run, last_step=last, on_lost=self._stay_here))
        return self.open[-1]

    def _stay_here(self) -> None:
        self.mode = "offline"


def mode_of(config: WandbConfig) -> str:
    """The W&B mode: the config's, or for `auto` that of WANDB_MODE, else online only with a key."""
    if config.mode != "auto":
        return config.mode
    told = os.environ.get("WANDB_MODE", "")
    if told in MODES:
        return told
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def _private(wait_s: float) -> wandb.Settings:
    """Settings that keep from W&B what it collects by itself: the command line with its overrides
    (keys may be among them), git remotes, code, host, installed packages, the terminal's output.
    """
    return wandb.Settings(
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH_S,
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        console="off",
        host="",
        silent=True,
        symlink=False,  # to the latest run: no use here
        login_timeout=wait_s,  # a prompt for a key must not hold up a table over night
        init_timeout=wait_s,
        finish_timeout=wait_s,
        finish_timeout_raises=True,
    )


def kept(file: Path, *, summary: bool = False) -> str:
    """What W&B has kept in a `.wandb` file: its records as JSON Lines, or the run as it stands.

    Raises CalledProcessError for a file that holds nothing yet.
    """
    # As `wandb leet inspect` does, which would tell W&B's server that it was used.
    options = ["--no-observability", "--json", *(["--summary"] if summary else [])]
    command = [get_core_path(), "leet", "inspect", *options, "-run-file", file, file.parent.parent]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _last_step(folder: Path) -> int:
    """The last step of training that earlier attempts have kept in a run's folder."""
    last = 0
    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        try:
            last = max(last, int(json.loads(kept(file, summary=True))["summary"][STEP]))
        except (subprocess.CalledProcessError, ValueError, KeyError):
            continue  # killed before it had told a step
    return last


def _artifact(one: Artifact) -> wandb.Artifact:
    name = re.sub(r"[^\w.-]", "_", f"{one.kind}-{one.name}")[:LONGEST_NAME]
    artifact = wandb.Artifact(name, type=one.kind, metadata=dict(one.metadata))
    for file, text in sorted(one.files.items()):
        with artifact.new_file(file, encoding="utf-8") as written:
            written.write(text)
    for file, path in sorted(one.data.items()):
        # A finished stage does not change: no copy is made of its files.
        artifact.add_file(str(path), name=f"files/{file}", policy="immutable")
    return artifact


def _aliases(one: Artifact) -> list[str]:
    return ["latest", one.key[:8]]


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
