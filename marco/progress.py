"""Progress: what runs, how much of it is done, at which rate, how long still."""

import json
import sys
import time
from pathlib import Path
from typing import Any, ClassVar


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """A bar and its figures that stay in place in a terminal; elsewhere plain lines.

    A plain line is printed at most every `every_s` seconds, so that a log file stays readable. What
    is shown is written to `state` too, where that is set: for those who ask from elsewhere.
    """

    state: ClassVar[Path | None] = None

    def __init__(self, label: str, total: int, unit: str, *, every_s: float = 5.0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.started = self.printed = time.monotonic()
        self.done, self.share, self.known_share = 0, 0.0, 0.0
        self.figures: dict[str, object] = {}
        self.is_shown = False
        self.live = _Live() if sys.stdout.isatty() else None
        self.every_s = 0.5 if self.live else every_s

    def update(
        self,
        done: int,
        *,
        share: float | None = None,
        known_share: float = 0.0,
        **figures: object,
    ) -> None:
        """Tell that `done` of the total is done; `figures` are printed as `name value`.

        `share` (0 to 1) is that of all the work, where unfinished items hold much of it;
        `known_share` is the part of it that was there before, and took no time.
        """
        self.done, self.figures, self.known_share = done, figures, known_share
        self.share = done / max(self.total, 1) if share is None else share
        self.is_shown = False
        if self.is_due():
            self._print()

    def is_due(self) -> bool:
        """Whether an update would be shown now."""
        return time.monotonic() - self.printed >= self.every_s

    def rate(self, amount: float) -> int:
        """`amount` per second since the start."""
        return round(amount / max(time.monotonic() - self.started, 1e-9))

    def close(self) -> None:
        if not self.is_shown:
            self._print()
        if self.live:
            self.live.close()

    def _print(self) -> None:
        self.printed, self.is_shown = time.monotonic(), True
        parts = [f"{name.replace('_', ' ')} {value}" for name, value in self.figures.items()]
        parts = [f"{self.done}/{self.total} {self.unit}", *parts, self._time()]
        if self.state:
            self._write(self.state)
        if self.live:
            self.live.show(self.label, self.share, parts)
        else:
            print(f"  {self.label}: " + " · ".join(parts), flush=True)

    def _left_s(self) -> float | None:
        """Seconds to the end at the rate so far; None where that is not known."""
        made = self.share - self.known_share
        if made > 0 and self.share < 1 and self.done < self.total:
            return (self.printed - self.started) / made * (1 - self.share)
        return None

    def _time(self) -> str:
        left = self._left_s()
        if left is not None:
            return f"ETA {duration(left)}"
        return f"took {duration(self.printed - self.started)}"

    def _write(self, state: Path) -> None:
        told = {"done": self.done, "total": self.total, "unit": self.unit}
        part = state.with_name(f"{state.name}.new")
        part.write_text(json.dumps(told | {"left_s": self._left_s()}), encoding="utf-8")
        part.replace(state)


class _Live:
    """The display of a terminal: a bar, and the figures in columns below it."""

    def __init__(self) -> None:
        from rich.live import Live

        self.live = Live(refresh_per_second=4)
        self.live.start()

    def show(self, label: str, share: float, parts: list[str]) -> None:
        self.live.update(self._drawn(label, share, parts))

    def close(self) -> None:
        self.live.stop()

    def _drawn(self, label: str, share: float, parts: list[str]) -> Any:
        from rich.columns import Columns
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        head = Table.grid(padding=(0, 1))
        head.add_row(
            f"  {label}", ProgressBar(total=1.0, completed=share, width=40), f"{share:.0%}"
        )
        return Group(head, Padding(Columns(parts, padding=(0, 3), expand=False), (0, 0, 0, 4)))
