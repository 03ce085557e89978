"""What a run tells the person: while it goes on, and what it cost at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from marco.driver.worker import Counts, Found
from marco.progress import Progress


class Report:
    """The live display of a run, headed by `label`; findings of status `wanted`, if there is such
    a status, are counted apart.

    `known` are the status and tokens of what was found before. What is answered from the journal
    counts as done, but has no part in the rates, nor in the ETA.
    """

    def __init__(
        self, label: str, problems: int, known: Mapping[int, tuple[str, int]], *, wanted: str | None
    ) -> None:
        self.label, self.wanted = label, wanted
        self.problems, self.done = problems, len(known)
        self.found = sum(status == wanted for status, _ in known.values())
        self.finished_tokens = self.known_tokens = sum(tokens for _, tokens in known.values())
        self.counts: Mapping[Any, Counts] = {}
        self.progress: Progress | None = None

    def begin(self) -> None:
        """Show the display, and count the time from now on: the engines have started."""
        self.progress = Progress(self.label, self.problems, "problems")

    def on_counts(self, counts: Mapping[Any, Counts]) -> None:
        """What each worker has done; one that died and its successor are two."""
        self.counts = counts
        if self.progress and self.progress.is_due():
            self._tell(self.progress)

    def on_found(self, found: Found) -> None:
        self.done += 1
        self.found += found.status == self.wanted
        self.finished_tokens += found.tokens

    @property
    def tokens_per_s(self) -> int:
        """Tokens that engines generated, per second, since `begin`; what was known is none."""
        tokens = sum(counts.tokens for counts in self.counts.values())
        return self.progress.rate(tokens) if self.progress else 0

    def close(self) -> None:
        if self.progress:
            self._tell(self.progress)
            self.progress.close()

    def _tell(self, progress: Progress) -> None:
        counts = self.counts.values()
        tokens = sum(c.tokens for c in counts)
        known = self.known_tokens + sum(c.replayed_tokens for c in counts)
        # Many walks are open side by side, so the tokens tell what is done, and not the walks.
        expected = self.problems * self.finished_tokens / self.done if self.done else 0.0
        running = sum(c.running for c in counts)
        most = (self.done + running / 2) / self.problems  # the first to end are small ones
        full = [c.fullness for c in counts if c.running] or [c.fullness for c in counts]
        progress.update(
            self.done,
            share=min((known + tokens) / expected, most) if expected else 0.0,
            known_share=min(known / expected, most) if expected else 0.0,
            running=running,
            **self._wanted(),
            nodes_per_s=progress.rate(sum(c.nodes for c in counts)),
            tokens_per_s=self.tokens_per_s,
            engine_full=f"{sum(full) / len(full):.0%}" if full else "–",
            cached=_percent(
                sum(c.cached_tokens for c in counts), sum(c.prompt_tokens for c in counts)
            ),
        )

    def _wanted(self) -> dict[str, Any]:
        if self.wanted is None:
            return {}
        each = round(self.finished_tokens / self.found) if self.found else "–"
        share = f"{self.found} ({_percent(self.found, self.done)})"
        return {self.wanted: share, f"tokens_per_{self.wanted}": each}


def cost_table(costs: Sequence[tuple[str, str, int, int, int, int]]) -> list[str]:
    """What each model wrote, by kind of node: lines of a table, the sums last."""
    sums = [sum(numbers) for numbers in zip(*(row[2:] for row in costs), strict=True)] or [0] * 4
    lines = [
        f"{'model':12} {'kind':14} {'requests':>9} {'prompt':>12} {'cached':>7} {'generated':>12}"
    ]
    for model, kind, requests, prompt, cached, tokens in [*costs, ("all", "", *sums)]:
        lines.append(
            f"{model:12} {kind:14} {requests:9,} {prompt:12,} {_percent(cached, prompt):>7} "
            f"{tokens:12,}"
        )
    return lines


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
