"""What stands before every logger: no secret passes to it, and no failure from it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from marco.reporting.allowlist import Redactor
from marco.reporting.loggers.protocol import Artifact, Logger, Run, RunInfo

TEXT_FILES = {".json", ".jsonl", ".csv", ".yaml", ".md", ".txt", ".jinja"}
Result = TypeVar("Result")


class GuardedRun:
    """A run that no secret reaches, and whose failure is told in one line and ends the logging.

    `is_broken` says that something is missing in it.
    """

    def __init__(self, run: Run, redact: Redactor) -> None:
        self.run, self.redact = run, redact
        self.last_step, self.is_broken = run.last_step, False

    def log(self, metrics: Mapping[str, float], **place: Any) -> None:
        self.guard("log", lambda: self.run.log(self.redact(metrics), **place))

    def summary(self, figures: Mapping[str, float | str]) -> None:
        self.guard("log figures", lambda: self.run.summary(self.redact(figures)))

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.guard("log samples", lambda: self.run.samples(self.redact(rows)))

    def pages(self, pages: Mapping[str, str]) -> None:
        self.guard("log trees", lambda: self.run.pages(self.redact(pages)))

    def lineage(self, output: Artifact, inputs: Sequence[Artifact]) -> None:
        self.guard(
            "log artifacts",
            lambda: self.run.lineage(self._clean(output), [self._clean(one) for one in inputs]),
        )

    def close(self, *, failed: bool) -> None:
        """Close the run, a broken one too."""
        was_broken, self.is_broken = self.is_broken, False
        self.guard("finish", lambda: self.run.close(failed=failed))
        self.is_broken |= was_broken

    def guard(self, what: str, action: Callable[[], Result]) -> Result | None:
        """Do something of the run's, unless something has failed before."""
        if self.is_broken:
            return None
        try:
            return action()
        except Exception as error:  # whatever a logger raises, the other runs go on
            self.is_broken = True
            _tell(self.redact(f"the logger could not {what}: {_told(error)}"))

    def _clean(self, artifact: Artifact) -> Artifact:
        return Artifact(
            name=self.redact(artifact.name),
            kind=artifact.kind,
            key=artifact.key,
            metadata=self.redact(artifact.metadata),
            files=self.redact(artifact.files),
            data=_without_secrets(artifact.data, self.redact),
        )


class GuardedLogger:
    """A logger that cannot fail, and to which no secret is told; made where it is first needed."""

    def __init__(self, make: Callable[[], Logger], redact: Redactor) -> None:
        self.make, self.redact = make, redact
        self.logger: Logger | None = None
        self.is_broken = False

    def start(self, info: RunInfo) -> GuardedRun | None:
        """Open a run; None where that fails, which is told."""
        if self.is_broken:
            return None
        clean = RunInfo(
            id=info.id,
            name=self.redact(info.name),
            group=self.redact(info.group),
            job_type=info.job_type,
            tags=tuple(self.redact(info.tags)),
            config=self.redact(info.config),
            folder=info.folder,
        )
        try:
            info.folder.mkdir(parents=True, exist_ok=True)
            if self.logger is None:
                self.is_broken = True
                self.logger = self.make()
                self.is_broken = False
            return GuardedRun(self.logger.start(clean), self.redact)
        except ImportError as error:
            _tell(f"the logger needs the extra `loggers` ({error}): pip install -e .[loggers]")
        except Exception as error:  # no server, a full disk
            _tell(self.redact(f"the logger could not start {clean.name}: {_told(error)}"))
        return None


def _without_secrets(paths: Mapping[str, Path], redact: Redactor) -> dict[str, Path]:
    """The files that hold no secret, as far as they are text; others are told."""
    kept = {}
    for name, path in paths.items():
        if path.suffix in TEXT_FILES:
            with path.open(encoding="utf-8", errors="replace") as file:
                if any(redact(line) != line for line in file):
                    print(f"{path} is not uploaded: it seems to hold a secret", flush=True)
                    continue
        kept[name] = path
    return kept


def _tell(line: str) -> None:
    print(line, flush=True)


def _told(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"
