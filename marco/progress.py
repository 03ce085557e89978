"""Progress in plain lines: what runs, how much of it is done, at which rate, how long still."""

import sys
import time


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Prints a line at most every `every_s` seconds, so that a log file stays readable."""

    def __init__(self, label: str, total: int, unit: str, *, every_s: float = 5.0) -> None:
        self.label, self.total, self.unit, self.every_s = label, total, unit, every_s
        self.started = self.printed = time.monotonic()
        self.done, self.share = 0, 0.0
        self.figures: dict[str, object] = {}

    def update(self, done: int, *, share: float | None = None, **figures: object) -> None:
        """Tell that `done` of the total is done; `figures` are printed as `name value`.

        `share` (0 to 1) is that of all the work, where unfinished items hold much of it.
        """
        self.done, self.figures = done, figures
        self.share = done / max(self.total, 1) if share is None else share
        now = time.monotonic()
        if now - self.printed >= self.every_s:
            self.printed = now
            self._print(now)

    def rate(self, amount: float) -> int:
        """`amount` per second since the start."""
        return round(amount / max(time.monotonic() - self.started, 1e-9))

    def close(self) -> None:
        self._print(time.monotonic())

    def _print(self, now: float) -> None:
        elapsed = now - self.started
        parts = [f"{self.done}/{self.total} {self.unit}"]
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self.figures.items()]
        if 0 < self.share < 1 and self.done < self.total:
            parts.append(f"ETA {duration(elapsed / self.share * (1 - self.share))}")
        else:
            parts.append(f"took {duration(elapsed)}")
        print(f"  {self.label}: " + " · ".join(parts), file=sys.stdout, flush=True)
