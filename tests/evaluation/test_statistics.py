import math
from statistics import NormalDist, fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from marco.errors import UserError
from marco.evaluation.statistics import (
    difference_of_shares,
    mean_with_interval,
    t_quantile,
    welch,
    wilson,
)

Z = NormalDist().inv_cdf(0.975)
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_of_published_example():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    assert wilson(81, 263, confidence=0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148, confidence=0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_wilson_at_the_ends_by_hand():
    # At k = 0 the formula shortens to [0, z²/(n + z²)], and k = n mirrors it.
    bound = Z**2 / (120 + Z**2)
    assert wilson(0, 120, confidence=0.95) == (0.0, pytest.approx(bound))
    assert wilson(120, 120, confidence=0.95) == (pytest.approx(1 - bound), 1.0)


@given(counts)
def test_wilson_bounds_solve_the_score_equation(count):
    # The slow definition: the shares p with (k/n - p)² = z² p(1 - p)/n.
    k, n = count
    for bound in wilson(k, n, confidence=0.95):
        assert (k / n - bound) ** 2 == pytest.approx(Z**2 * bound * (1 - bound) / n, abs=1e-12)


@given(counts)
def test_wilson_holds_the_share_and_mirrors(count):
    k, n = count
    low, high = wilson(k, n, confidence=0.9)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson(n - k, n, confidence=0.9) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("k", "n", "confidence"), [(1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 95), (1, 2, 0)]
)
def test_wilson_refuses_what_is_no_share(k, n, confidence):
    with pytest.raises(UserError, match="expected"):
        wilson(k, n, confidence=confidence)


@pytest.mark.parametrize(
    ("freedom", "printed"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042)]
)
def test_t_quantile_of_printed_tables(freedom, printed):
    assert t_quantile(0.975, freedom) == pytest.approx(printed, abs=5e-4)


@pytest.mark.parametrize("p", [0.55, 0.9, 0.975, 0.9995])
def test_t_quantile_in_closed_form_and_in_the_limit(p):
    assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)))
    assert t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)))
    assert t_quantile(p, 1e7) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-5)


def test_mean_with_interval_by_hand():
    over = mean_with_interval([0.6, 0.7, 0.8], confidence=0.95)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (over.mean, over.sd) == (pytest.approx(0.7), pytest.approx(0.1))
    assert over.interval == pytest.approx((0.7 - half, 0.7 + half))


def test_one_seed_has_no_interval_over_seeds():
    with pytest.raises(UserError, match="two values or more, got 1"):
        mean_with_interval([0.5], confidence=0.95)


def test_difference_of_shares_of_published_example():
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80, and 10/10
    # - 0/20, where the normal approximation has no width.
    interval = difference_of_shares(56 / 70, 70, 48 / 80, 80, confidence=0.95)
    assert interval == pytest.approx((0.0524, 0.3339), abs=5e-5)
    low, high = difference_of_shares(1, 10, 0, 20, confidence=0.95)
    assert (low, high) == (pytest.approx(0.6791, abs=5e-5), 1.0)


@given(counts, counts)
def test_difference_of_shares_is_antisymmetric(one, other):
    (k, n), (j, m) = one, other
    low, high = difference_of_shares(k / n, n, j / m, m, confidence=0.95)
    assert -1 - 1e-12 <= low <= k / n - j / m <= high <= 1 + 1e-12
    turned = difference_of_shares(j / m, m, k / n, n, confidence=0.95)
    assert turned == pytest.approx((-high, -low))


def test_welch_of_equal_spread_is_students():
    # Equal sizes and variances: df = 2(k - 1) = 4, standard error = sd·sqrt(2/3).
    low, high = welch([0.6, 0.7, 0.8], [0.1, 0.2, 0.3], confidence=0.95)
    half = 2.776445 * 0.1 * math.sqrt(2 / 3)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)


def test_welch_with_one_side_constant_has_the_others_freedom():
    low, high = welch([0.6, 0.7, 0.8], [0.2, 0.2, 0.2], confidence=0.95)
    over = mean_with_interval([0.6, 0.7, 0.8], confidence=0.95)
    assert (low, high) == pytest.approx((over.interval[0] - 0.2, over.interval[1] - 0.2))


shares = st.lists(st.integers(0, 100).map(lambda k: k / 100), min_size=2, max_size=5)


@given(shares, shares)
def test_welch_is_centred_and_antisymmetric(values, others):
    assume(len(set(values)) + len(set(others)) > 2)
    low, high = welch(values, others, confidence=0.95)
    assert (low + high) / 2 == pytest.approx(fmean(values) - fmean(others), abs=1e-9)
    assert welch(others, values, confidence=0.95) == pytest.approx((-high, -low))


def test_welch_refuses_seeds_that_tell_nothing():
    with pytest.raises(UserError, match="two seeds"):
        welch([0.1], [0.2, 0.3], confidence=0.95)
    with pytest.raises(UserError, match="vary"):
        welch([0.1, 0.1], [0.2, 0.2], confidence=0.95)
