import math
from itertools import product
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from marco.errors import UserError
from marco.evaluation.statistics import (
    difference_of_shares,
    drawn_sign_flips,
    mean_with_interval,
    pooled_share,
    ratio_bootstrap,
    ratio_with_interval,
    sign_flips,
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


@settings(deadline=None)
@given(counts)
def test_wilson_bounds_solve_the_score_equation(count):
    # The slow definition: the shares p with (k/n - p)² = z² p(1 - p)/n.
    k, n = count
    for bound in wilson(k, n, confidence=0.95):
        assert (k / n - bound) ** 2 == pytest.approx(Z**2 * bound * (1 - bound) / n, abs=1e-12)


@settings(deadline=None)
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


@settings(deadline=None)
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


@settings(deadline=None)
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


def drawn(seed=0, resamples=2000, confidence=0.95):
    rng = np.random.default_rng(seed)
    return {"rng": rng, "resamples": resamples, "confidence": confidence}


def test_a_pooled_share_of_single_samples_is_wilsons():
    hits = [1] * 30 + [0] * 70
    assert pooled_share(hits, [1] * 100, **drawn()) == wilson(30, 100, confidence=0.95)


@pytest.mark.parametrize("hits", [0, 2, 4])
def test_problems_that_all_agree_are_bounded_by_their_number_and_not_by_their_samples(hits):
    interval = pooled_share([hits] * 50, [4] * 50, **drawn())
    assert interval == wilson(50 * hits / 4, 50, confidence=0.95)


def test_tries_that_repeat_each_other_add_nothing():
    # Eight equal tries at each of 200 problems are 200 samples, and not 1,600.
    hits = [8] * 60 + [0] * 140
    low, high = pooled_share(hits, [8] * 200, **drawn(resamples=20_000))
    one, other = wilson(60, 200, confidence=0.95)
    assert (low, high) == (pytest.approx(one, abs=0.01), pytest.approx(other, abs=0.01))
    naive = wilson(480, 1600, confidence=0.95)
    assert high - low > 2 * (naive[1] - naive[0])


def test_a_rare_share_has_a_bound_like_wilsons():
    # One problem of 200 in two tries each: plain percentiles would end at 3/200.
    low, high = pooled_share([2] + [0] * 199, [2] * 200, **drawn(resamples=20_000))
    assert low == 0.0
    assert high == pytest.approx(wilson(1, 200, confidence=0.95)[1], abs=0.006)


def test_the_bootstrap_is_that_of_drawing_every_cluster():
    # Slow twin: percentiles of clusters drawn one by one; of symmetric data BCa moves them little.
    rng = np.random.default_rng(3)
    sums, sizes = rng.integers(0, 4, 80), np.full(80, 3)
    picks = rng.integers(0, 80, (20_000, 80))
    slow = np.quantile(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1), [0.025, 0.975])
    fast = ratio_bootstrap(list(sums), list(sizes), **drawn(resamples=20_000))
    assert fast == pytest.approx(tuple(slow), abs=0.015)


def test_the_bootstrap_is_repeatable_and_refuses_no_ratio_of_its_own():
    sums, sizes = [1, 0, 2, 3], [2, 3, 3, 3]
    assert ratio_bootstrap(sums, sizes, **drawn()) == ratio_bootstrap(sums, sizes, **drawn())
    assert ratio_bootstrap([2, 3], [4, 6], **drawn()) == (0.5, 0.5)  # no width: the ratios agree


clusters = st.lists(st.tuples(st.integers(-6, 6), st.integers(1, 3)), min_size=1, max_size=30)


@settings(deadline=None)
@given(clusters, st.integers(0, 9))
def test_the_bootstrap_holds_the_estimate(found, seed):
    sums, sizes = zip(*found, strict=True)
    low, high = ratio_bootstrap(sums, sizes, **drawn(seed, resamples=200))
    assert low <= sum(sums) / sum(sizes) <= high


def test_intervals_over_problems_cover_what_samples_taken_alone_do_not():
    # 60 problems of unequal difficulty, 8 tries each; the true share is 0.5.
    rng = np.random.default_rng(5)
    covered = naive = 0
    for run in range(300):
        hits = rng.binomial(8, rng.beta(0.5, 0.5, 60))
        low, high = pooled_share(list(hits), [8] * 60, **drawn(run, resamples=500))
        covered += low <= 0.5 <= high
        low, high = wilson(int(hits.sum()), 480, confidence=0.95)
        naive += low <= 0.5 <= high
    assert 0.91 <= covered / 300 <= 0.98
    assert naive / 300 < 0.75


def test_a_ratio_of_equal_clusters_is_the_mean_of_their_means():
    expected = mean_with_interval([2, 4, 9], confidence=0.95).interval
    assert ratio_with_interval([4, 8, 18], [2, 2, 2], confidence=0.95) == pytest.approx(expected)
    with pytest.raises(UserError, match="two problems or more, got 1"):
        ratio_with_interval([4], [2], confidence=0.95)


def test_sign_flips_of_ones_are_mcnemars_test_by_hand():
    # b = 5, c = 1 of 6: 2 (1 + 6) / 64, and the mid-p less the chance of 5 once.
    assert sign_flips([1] * 5 + [-1] + [0] * 90) == pytest.approx((14 / 64, 8 / 64))
    assert sign_flips([1] * 5) == pytest.approx((2 / 32, 1 / 32))
    # b = c: nothing is farther from what is expected, and the mid-p is 1 - C(4, 2) / 2^5.
    assert sign_flips([1, 1, -1, -1]) == pytest.approx((1.0, 1 - 6 / 32))
    assert sign_flips([0, 0, 0]) == sign_flips([]) == (1.0, 1.0)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_flips_of_ones_are_the_two_sided_binomial(b, c):
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    p, mid_p = sign_flips([1] * b + [-1] * c)
    assert p == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mid_p <= p
    assert sign_flips([-1] * b + [1] * c) == (p, mid_p)


def test_drawn_sign_flips_are_the_exact_ones_but_for_the_draws():
    for steps in ([1] * 6 + [-1], [3, 1, 1, -2], [5, -1, 2, 2, 0], [0, 0], []):
        drawn = drawn_sign_flips(np.array(steps) / 7.0, draws=20_000, rng=np.random.default_rng(0))
        assert drawn == pytest.approx(sign_flips(steps), abs=0.02)
    rng = np.random.default_rng(0)
    assert drawn_sign_flips(np.ones(99), draws=9, rng=rng) == (1 / 10, 1 / 10)


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=9), st.integers(1, 4))
def test_sign_flips_are_the_share_of_all_patterns(differences, factor):
    # Slow twin: every pattern of signs; and a common factor changes nothing.
    seen = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    p, mid_p = sign_flips([factor * d for d in differences])
    assert p == pytest.approx(sum(s >= seen for s in sums) / len(sums))
    if any(differences):
        half = sum(s == seen for s in sums) / len(sums) / 2
        assert mid_p == pytest.approx(p - half)
