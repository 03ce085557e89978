"""Where a text runs in a loop: exactly, by its characters, or nearly, by its sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FACTORS = tuple(np.uint64(f) for f in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F))  # odd, well mixed
HALF = np.uint64(32)
FEWEST_REPEATS = 3  # below them `longest_run` may miss runs


@dataclass(frozen=True, kw_only=True)
class Run:
    """Symbols `start` to `start + length`, each equal to the one `period` before it."""

    start: int
    length: int
    period: int

    @property
    def repeats(self) -> float:
        return self.length / self.period


def codes(text: str) -> NDArray[np.uint32]:
    """The code points of a text, lone surrogates too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def longest_run(
    symbols: NDArray[np.uint32], *, repeats: int, length: int, max_period: int
) -> Run | None:
    """The longest run of at least `length` symbols and `repeats` (3 or more) periods, or None.

    Of equally long ones the one with the smaller period, then the first; it may end within a
    period. O(n log max_period): for the periods `low` to `high` - 1, windows of `high` - 1 symbols
    are taken every `low` // 2 symbols, and looked for `low` to `high` - 1 symbols further on. A
    window is as long as any such period, so within a run it first recurs after just one (theorem
    of Fine and Wilf), and three periods always hold a window that recurs. Windows are compared by
    their hashes, the run that is found by its symbols.
    """
    if repeats < FEWEST_REPEATS:
        raise ValueError(f"repeats is {repeats}: expected {FEWEST_REPEATS} or more")
    max_period = min(max_period, len(symbols) // repeats)
    # All of a run but its last period recurs, and that is this much of it at least.
    if not _recurs(symbols, length - length // repeats):
        return None
    # Symbols that occur nowhere else end every run at the end of the text.
    beyond = np.arange(3 * max_period, dtype=np.uint32) + (symbols.max(initial=0) + 1)
    padded = np.concatenate([symbols, beyond.astype(np.uint32)])
    windows = _Windows(padded)
    best: Run | None = None
    low = 1
    while low <= max_period:
        high = min(max(low + 1, low * 3 // 2), max_period + 1)
        step = max(1, low // 2)
        hashes = windows.of(high - 1)
        further = sliding_window_view(hashes, high - low)[low::step]
        same = further == hashes[::step][: len(further), None]
        first = same.argmax(axis=1)
        recurs = np.where(same[np.arange(len(first)), first], first + low, 0)
        for start, stop, period in _stretches(recurs, step, high - 1, repeats, length, best):
            if best and stop + period - start + 2 * step < best.length:
                break
            run = _widen(padded, start, stop, period, step)
            wanted = max(length, repeats * period)
            if run.length >= wanted and (best is None or _rank(run) > _rank(best)):
                best = run if _is_run(padded, run) else best
        low = high
    return best


def _recurs(symbols: NDArray[np.uint32], length: int) -> bool:
    """Whether any `length` symbols occur twice: most texts have no such, and are done with."""
    if len(symbols) <= length:
        return False
    hashes = np.sort(_Windows(symbols).of(length))
    return bool((hashes[1:] == hashes[:-1]).any())


class _Windows:
    """Hashes of all windows of a length that does not fall from call to call."""

    def __init__(self, symbols: NDArray[np.uint32]) -> None:
        self.size, self.hashes = 1, _mixed(symbols.astype(np.uint64), symbols.astype(np.uint64))

    def of(self, length: int) -> NDArray[np.uint64]:
        while 2 * self.size <= length:
            self.hashes = self._joined(self.size)
            self.size *= 2
        return self.hashes if self.size == length else self._joined(length - self.size)

    def _joined(self, shift: int) -> NDArray[np.uint64]:
        return _mixed(self.hashes[:-shift], self.hashes[shift:])


def _mixed(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = left * FACTORS[0] + right * FACTORS[1]
    return mixed ^ (mixed >> HALF)


def _stretches(
    recurs: NDArray[np.int64],
    step: int,
    window: int,
    repeats: int,
    length: int,
    best: Run | None,
) -> list[tuple[int, int, int]]:
    """(start, stop, period) where neighbouring windows recur after the same period, longest first.

    All symbols from start to before stop equal the ones a period further on. Only what may be long
    enough: a run reaches less than a step further on either side.
    """
    bounds = np.flatnonzero(np.diff(recurs, prepend=-1, append=-1))
    firsts, ends = bounds[:-1], bounds[1:]
    periods = recurs[firsts]
    lengths = (ends - 1 - firsts) * step + window + periods
    wanted = np.maximum(max(length, best.length if best else 0), repeats * periods)
    kept = np.flatnonzero((periods > 0) & (lengths + 2 * step >= wanted))
    kept = kept[np.argsort(-lengths[kept], kind="stable")]
    starts = firsts[kept] * step
    stops = (ends[kept] - 1) * step + window
    return list(zip(starts.tolist(), stops.tolist(), periods[kept].tolist(), strict=True))


def _widen(padded: NDArray[np.uint32], start: int, stop: int, period: int, step: int) -> Run:
    """The run around a stretch: as far as symbols equal those a period further on."""
    while start > 0:
        back = max(0, start - step)
        differ = np.flatnonzero(padded[back:start] != padded[back + period : start + period])
        start = back + int(differ[-1]) + 1 if differ.size else back
        if differ.size:
            break
    while True:
        further = padded[stop + period : stop + period + step]
        differ = np.flatnonzero(padded[stop : stop + len(further)] != further)
        stop += int(differ[0]) if differ.size else len(further)
        if differ.size or not further.size:
            return Run(start=start, length=stop + period - start, period=period)


def _is_run(padded: NDArray[np.uint32], run: Run) -> bool:
    stop = run.start + run.length
    one, next_one = padded[run.start : stop - run.period], padded[run.start + run.period : stop]
    return bool(np.array_equal(one, next_one))


def _rank(run: Run) -> tuple[int, int, int]:
    return run.length, -run.period, -run.start


@dataclass(frozen=True, kw_only=True)
class NearRun(Run):
    """A run of sentences of which the share `agreement` agrees with the one `period` before it.

    `is_last` where no more than one sentence follows: the one that was cut off.
    """

    agreement: float
    is_last: bool


def near_runs(
    forms: Sequence[str], *, agreement: float, compared: int, max_period: int
) -> Iterator[NearRun]:
    """For every period the longest run of sentences that nearly repeat, if there is one.

    `forms` are what is compared of the sentences (see `sentences.forms_of`): two agree where the
    first or the last `compared` characters do. A run is the stretch that is longest once every
    disagreement is paid for with `agreement / (1 - agreement)` agreements, so that more than that
    share of it agrees. O(n * max_period), in steps of numpy.
    """
    heads = _numbered([form[:compared] for form in forms])
    tails = _numbered([form[-compared:] for form in forms])
    price = agreement / (1 - agreement)
    for period in range(1, min(max_period, len(forms) - 1) + 1):
        agree = (heads[period:] == heads[:-period]) | (tails[period:] == tails[:-period])
        gains = np.concatenate([[0.0], np.cumsum(np.where(agree, 1.0, -price))])
        earned = gains - np.minimum.accumulate(gains)
        stop = int(earned.argmax())
        if stop:
            start = stop - int(gains[stop::-1].argmin())
            yield NearRun(
                start=start,
                length=stop - start + period,
                period=period,
                agreement=float(agree[start:stop].mean()),
                is_last=stop >= len(agree) - 1,
            )


def _numbered(texts: Sequence[str]) -> NDArray[np.int64]:
    """Texts as numbers, equal for equal texts."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)
