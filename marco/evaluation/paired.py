"""Two students on the same problems: what differs is told problem by problem.

Two noises are told apart. Of the problems: a bootstrap that draws problems again, each with the
mean over its seeds, turns and tries, and an exact test (McNemar's, or sign flips where a problem
has several samples). Of the seeds: Student's t over the seeds' means, not a bootstrap, since two or
three seeds drawn again vary too little. A difference holds where it holds against both.

An official metric is no share of samples, but a mean of ratios (`marco.evaluation.official`). Its
difference is drawn in the same way, problems within their language, and tested by sign flips too:
where neither student is better, their replies to a problem may as well be exchanged. Its problems
weigh differently, so patterns of signs are drawn.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np

from marco.errors import UserError
from marco.evaluation.official import (
    PROMPTS,
    RATIOS,
    Counts,
    Floats,
    accuracies_of,
    bca_of,
    draw,
    equally_sure,
)
from marco.evaluation.statistics import (
    TIED,
    difference_of_shares,
    drawn_sign_flips,
    mean_with_interval,
    no_difference,
    ratio_bootstrap,
    sign_flips,
    welch,
)
from marco.tasks.verdict import CORRECT

Unit = tuple[Any, Any]  # a problem's id, and the turn
Noise = Literal["problems", "problems and seeds"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation of one student on a task: the verdicts of the tries, by problem and turn.

    `counts` is what an official metric is computed of, None where accuracy is the share of
    correct samples.
    """

    source: str
    verdicts: Mapping[Unit, Sequence[str]]
    prompts: Mapping[Any, Any]
    counts: Counts | None = None

    @classmethod
    def of(cls, samples: Iterable[Mapping[str, Any]], *, source: str) -> "Run":
        """The run of graded samples; a problem's prompt is that of its first sample, if told.

        Where no turn is told there is one.
        """
        verdicts: dict[Unit, list[str]] = {}
        prompts: dict[Any, Any] = {}
        for sample in samples:
            verdicts.setdefault((sample["id"], sample.get("turn") or 1), []).append(
                sample["verdict"]
            )
            prompts.setdefault(sample["id"], sample.get("prompt"))
        return cls(source=source, verdicts=verdicts, prompts=prompts)

    def share(self, verdict: str) -> float:
        """The share of a verdict, in 0..1 of all samples."""
        counts = [own.count(verdict) for own in self.verdicts.values()]
        return sum(counts) / sum(map(len, self.verdicts.values()))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The share of a verdict with A minus that with B, in -1..1, and whether noise explains it.

    `n` problems; on `more_a` of them the verdict is more frequent with A, on `more_b` with B (with
    one sample a problem McNemar's b and c). `p` and `mid_p` are those of `sign_flips`, exact or
    drawn. Where the comparison is by an official metric, read that for the share of a verdict.
    `over_problems` and `over_seeds` are intervals of the difference, each against one noise;
    `over_seeds` is None where no seeds tell of it. Where the two agree on every problem the first
    is what n problems still allow (`statistics.no_difference`).
    """

    a: float
    b: float
    n: int
    more_a: int
    more_b: int
    p: float
    mid_p: float
    test: Literal["mcnemar", "sign_flips", "drawn_sign_flips"]
    over_problems: tuple[float, float]
    over_seeds: tuple[float, float] | None
    confidence: float

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def interval(self) -> tuple[float, float]:
        """What both intervals together cover: it holds zero where one of them does."""
        both = [self.over_problems, self.over_seeds or self.over_problems]
        return min(low for low, _ in both), max(high for _, high in both)

    @property
    def noise(self) -> Noise:
        return "problems" if self.over_seeds is None else "problems and seeds"

    @property
    def holds(self) -> bool:
        """Whether the difference is beyond noise: by both intervals, and by the test.

        The test guards where few problems differ: with 4 of them, all to one side, the bootstrap
        leaves zero out, but four coins fall alike one time in eight.
        """
        low, high = self.interval
        return self.p < 1 - self.confidence and not low <= 0 <= high


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    *,
    verdict: str,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> Comparison:
    """Compare two students, each with one run a seed, by the share of a verdict.

    Runs with `counts` are compared by their official metric for the verdict `correct`. UserError
    where the runs are not of the same problems (`mismatch`).
    """
    if why := mismatch(a, b):
        raise UserError(why)
    counts = [[run.counts for run in side if run.counts] for side in (a, b)]
    if verdict == CORRECT and all(counts):
        return _by_official(*counts, confidence=confidence, resamples=resamples, rng=rng)
    # Per unit: samples over all seeds; the differences become whole numbers for the exact test.
    samples = [len(side) * _tries(side[0]) for side in (a, b)]
    scale = math.lcm(*samples)
    hits = [_hits(side, verdict) for side in (a, b)]
    sizes = _sizes(a[0])
    steps = [
        hits[0][id] * (scale // samples[0]) - hits[1][id] * (scale // samples[1]) for id in sizes
    ]
    counts = list(sizes.values())
    low, high = ratio_bootstrap(steps, counts, confidence=confidence, resamples=resamples, rng=rng)
    interval = (low / scale, high / scale)
    n, shares = len(sizes), [[run.share(verdict) for run in side] for side in (a, b)]
    if not any(steps):  # alike on every problem: the bootstrap would call that certain
        interval = no_difference(n, confidence=confidence)
    elif low == high:  # as far apart on every problem: so here
        means = [fmean(side) for side in shares]
        interval = difference_of_shares(means[0], n, means[1], n, confidence=confidence)
    p, mid_p = sign_flips(steps)
    return Comparison(
        a=fmean(shares[0]),
        b=fmean(shares[1]),
        n=n,
        more_a=sum(step > 0 for step in steps),
        more_b=sum(step < 0 for step in steps),
        p=p,
        mid_p=mid_p,
        test="mcnemar" if samples == [1, 1] and sum(counts) == n else "sign_flips",
        over_problems=interval,
        over_seeds=_over_seeds(*shares, confidence=confidence),
        confidence=confidence,
    )


def _by_official(
    a: Sequence[Counts],
    b: Sequence[Counts],
    *,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> Comparison:
    """The comparison by the official metric; each side has the counts of its seeds."""
    languages, n = a[0].languages, len(a[0].problems)
    own = np.stack([_mean_counts(a), _mean_counts(b)], axis=1)  # [problems, 2, cells, COUNTS]
    total = own.sum(axis=0)
    steps = _weights(own[:, 0] - own[:, 1], total[0])
    values, left_out = (
        np.subtract(*np.moveaxis(accuracies_of(counts)[..., -1], -1, 0))
        for counts in (draw(own, languages, resamples=resamples, rng=rng), total - own)
    )
    officials = [[counts.official for counts in side] for side in (a, b)]
    means = [fmean(side) for side in officials]
    sure, interval = equally_sure(languages), None
    if not steps.any():
        interval = no_difference(sure, confidence=confidence)
    elif min(Counter(languages.tolist()).values()) > 1:
        estimate = means[0] - means[1]
        interval = bca_of(values, left_out, estimate, languages=languages, confidence=confidence)
    # Where draws say nothing, the problems still bound each side.
    interval = interval or difference_of_shares(
        means[0], sure, means[1], sure, confidence=confidence
    )
    p, mid_p = drawn_sign_flips(steps, draws=resamples, rng=rng)
    return Comparison(
        a=means[0],
        b=means[1],
        n=n,
        more_a=int((steps > 0).sum()),
        more_b=int((steps < 0).sum()),
        p=p,
        mid_p=mid_p,
        test="drawn_sign_flips",
        over_problems=interval,
        over_seeds=_over_seeds(*officials, confidence=confidence),
        confidence=confidence,
    )


def _mean_counts(side: Sequence[Counts]) -> Floats:
    """What a problem counts in each cell, as a mean over seeds and tries: one prompt a cell."""
    seeds = [counts.own / counts.own[..., PROMPTS].max() for counts in side]
    return np.mean(seeds, axis=0)


def _weights(differences: Floats, total: Floats) -> Floats:
    """What each problem adds to the difference of the official metric: [problems].

    The metric is linear in what is followed, since both sides have the same instructions.
    """
    shares = [differences[..., hits] / total[:, of] for hits, of in RATIOS.values()]
    added = np.mean(shares, axis=(0, 2))
    return np.where(abs(added) > TIED, added, 0.0)


def mismatch(a: Sequence[Run], b: Sequence[Run]) -> str | None:
    """Why the runs cannot be compared problem by problem, and what to do; None where they can."""
    first, *others = (*a, *b)
    for other in others:
        pair = f"{first.source} and {other.source}"
        lone = set(first.verdicts) ^ set(other.verdicts)
        if lone:
            ids = list(dict.fromkeys(u[0] for u in (*first.verdicts, *other.verdicts) if u in lone))
            return (
                f"{len(ids)} problems are only in one of {pair}, the first is {ids[0]!r}: "
                "evaluate both on the same split and problems"
            )
        changed = [
            id
            for id, prompt in first.prompts.items()
            if None not in (prompt, other.prompts[id]) and prompt != other.prompts[id]
        ]
        if changed:
            return (
                f"{len(changed)} problems have another text in {pair}, the first is "
                f"{changed[0]!r}: evaluate both with the same task settings"
            )
        if first.counts and other.counts and not first.counts.asks_as(other.counts):
            return f"{pair} were graded by other instructions or languages: grade both anew"
    for side in (a, b):
        tries = {len(own) for run in side for own in run.verdicts.values()}
        if len(tries) > 1:
            return (
                f"{side[0].source} has {min(tries)} to {max(tries)} tries a problem: take as many "
                "at each problem, with each seed"
            )
    return None


def _tries(run: Run) -> int:
    return len(next(iter(run.verdicts.values())))


def _hits(side: Sequence[Run], verdict: str) -> dict[Any, int]:
    """How often each problem has the verdict, over seeds, turns and tries."""
    hits: dict[Any, int] = {}
    for run in side:
        for (id, _), own in run.verdicts.items():
            hits[id] = hits.get(id, 0) + own.count(verdict)
    return hits


def _sizes(run: Run) -> dict[Any, int]:
    """The turns of each problem."""
    sizes: dict[Any, int] = {}
    for id, _ in run.verdicts:
        sizes[id] = sizes.get(id, 0) + 1
    return sizes


def _over_seeds(
    a: Sequence[float], b: Sequence[float], *, confidence: float
) -> tuple[float, float] | None:
    """Interval of the difference of the seeds' means; None where no seeds vary.

    With several seeds on both sides Welch's. A side of one seed (an untrained model has no more) is
    taken as it is.
    """
    if len(set(a)) == len(set(b)) == 1:
        return None
    if min(len(a), len(b)) > 1:
        return welch(a, b, confidence=confidence)
    mean, fixed, sign = (a, b[0], 1) if len(a) > 1 else (b, a[0], -1)
    low, high = mean_with_interval(mean, confidence=confidence).interval
    bounds = sorted((sign * (low - fixed), sign * (high - fixed)))
    return bounds[0], bounds[1]
