"""Intervals for shares and for means over seeds, and for the differences between two rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

import mpmath

from marco.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean and sample standard deviation, with Student's t interval of the mean."""

    mean: float
    sd: float
    interval: tuple[float, float]


def wilson(successes: float, n: int, *, confidence: float) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a share `successes / n`, both in 0..1.

    `successes` may be a fraction, when the share is a mean over seeds. UserError for `n` below 1
    or a share outside 0..1. Source: Wilson 1927, without continuity correction.
    """
    if n < 1 or not 0 <= successes <= n:
        raise UserError(f"a share of {successes} out of {n} has no interval: expected 0 <= k <= n")
    z = NormalDist().inv_cdf(_upper_tail(confidence))
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n the bound is exactly 0 or 1; rounding would put it a hair outside the share.
    low = 0.0 if successes == 0 else min(max(0.0, centre - half), share)
    high = 1.0 if successes == n else max(min(1.0, centre + half), share)
    return low, high


def mean_with_interval(values: Sequence[float], *, confidence: float) -> Mean:
    """Mean of independent values (one per seed, say), with its t interval.

    Degrees of freedom are `len(values) - 1`. The interval is not cut to 0..1. UserError for fewer
    than two values.
    """
    if len(values) < 2:
        raise UserError(f"the interval of a mean needs two values or more, got {len(values)}")
    mean, sd = fmean(values), stdev(values)
    half = t_quantile(_upper_tail(confidence), len(values) - 1) * sd / math.sqrt(len(values))
    return Mean(mean=mean, sd=sd, interval=(mean - half, mean + half))


def difference_of_shares(
    share: float, n: int, other: float, other_n: int, *, confidence: float
) -> tuple[float, float]:
    """Interval (low, high) of `share - other` for two independent samples, in -1..1.

    Newcombe's hybrid of two Wilson intervals (1998, method 10): unlike the normal approximation it
    keeps a width where a share is 0 or 1, as no-answer ratios often are.
    """
    low, high = wilson(share * n, n, confidence=confidence)
    other_low, other_high = wilson(other * other_n, other_n, confidence=confidence)
    difference = share - other
    return (
        difference - math.hypot(share - low, other_high - other),
        difference + math.hypot(high - share, other - other_low),
    )


def welch(
    values: Sequence[float], others: Sequence[float], *, confidence: float
) -> tuple[float, float]:
    """Interval (low, high) of the difference of two means over seeds, variances not assumed equal.

    Degrees of freedom after Welch and Satterthwaite. UserError for fewer than two values on a side,
    or where no value varies on either side: then the seeds say nothing about noise.
    """
    if len(values) < 2 or len(others) < 2:
        raise UserError("Welch's interval needs two seeds or more on both sides")
    squared, other_squared = (stdev(side) ** 2 / len(side) for side in (values, others))
    total = squared + other_squared
    if total == 0:
        raise UserError("Welch's interval needs values that vary over the seeds")
    freedom = total**2 / (squared**2 / (len(values) - 1) + other_squared**2 / (len(others) - 1))
    half = t_quantile(_upper_tail(confidence), freedom) * math.sqrt(total)
    difference = fmean(values) - fmean(others)
    return difference - half, difference + half


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t for `probability` in 0.5..1 (open) and `freedom` > 0 degrees.

    The two-sided tail 2(1 - p) is the regularised incomplete beta function I_x(freedom/2, 1/2)
    at x = freedom / (freedom + t^2), solved for t.
    """
    tail = 2 * (1 - probability)

    def excess(t: Any) -> Any:
        x = freedom / (freedom + t * t)
        return mpmath.betainc(freedom / 2, 0.5, 0, x, regularized=True) - tail

    high = 2.0
    while excess(mpmath.mpf(high)) > 0:
        high *= 2
    return float(mpmath.findroot(excess, (0, high), solver="anderson", tol=1e-20))


def _upper_tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UserError(f"confidence is {confidence}: expected a share between 0 and 1, e.g. 0.95")
    return (1 + confidence) / 2
