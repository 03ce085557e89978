import math
import random

import pytest

from marco.search.tree import Node
from marco.search.ucb import best, ucb


def node(id: int, value: float, visits: int) -> Node:
    return Node(id=id, parent=0, kind="thinking", model=None, text="", value=value, visits=visits)


def test_ucb_by_hand() -> None:
    # 3/4 + 1.414 * sqrt(ln 9 / 4), ln 9 = 2.1972246
    assert ucb(3, 4, 9, c=1.414) == pytest.approx(0.75 + 1.414 * 0.7411519, abs=1e-6)
    # N(parent) = e^2, N = 2: sqrt(2 / 2) = 1
    assert ucb(1, 2, math.exp(2), c=2.0) == pytest.approx(0.5 + 2.0)  # type: ignore[arg-type]


def test_limits() -> None:
    assert ucb(0, 0, 5, c=0.0) == math.inf
    assert ucb(3, 4, 1000, c=0.0) == 0.75  # no exploration: the mean
    assert ucb(1, 1, 1, c=9.0) == 1.0  # ln 1 = 0
    assert ucb(1, 2, 50, c=1.0) > ucb(2, 4, 50, c=1.0)  # same mean, fewer visits
    assert ucb(1, 2, 51, c=1.0) > ucb(1, 2, 50, c=1.0)


def test_the_released_constant_is_the_same_rule() -> None:
    """1.414·sqrt(2·ln N / n) = 2·sqrt(ln N / n), up to the digits of 1.414."""
    released = 0.5 + 1.414 * math.sqrt(2 * math.log(20) / 4)
    assert ucb(2, 4, 20, c=2.0) == pytest.approx(released, abs=1e-3)


def test_best_takes_the_unvisited_then_the_highest() -> None:
    rng = random.Random(0)
    assert best([node(1, 9, 9), node(2, 0, 0)], 9, {}, c=1.0, rng=rng).id == 2
    assert best([node(1, 1, 4), node(2, 3, 4)], 8, {}, c=1.0, rng=rng).id == 2
    assert best([node(1, 50, 100), node(2, 0, 1)], 101, {}, c=10.0, rng=rng).id == 2  # explores
    assert best([node(1, 50, 100), node(2, 0, 1)], 101, {}, c=0.0, rng=rng).id == 1  # does not


def test_ties_are_drawn_with_the_seed() -> None:
    children = [node(i, 1, 2) for i in range(4)]

    def draws(seed: int) -> list[int]:
        rng = random.Random(seed)
        return [best(children, 8, {}, c=1.0, rng=rng).id for _ in range(50)]

    assert draws(1) == draws(1) != draws(2)
    assert set(draws(1)) == {0, 1, 2, 3}


def test_a_rollout_under_way_counts_as_a_visit_without_a_reward() -> None:
    """3/4 + sqrt(ln 9 / 4) = 1.491 against 1/2 + sqrt(ln 9 / 2) = 1.548; with one under way below
    the second, 1/3 + sqrt(ln 9 / 3) = 1.189.
    """
    children, rng = [node(1, 3, 4), node(2, 1, 2)], random.Random(0)
    assert best(children, 9, {}, c=1.0, rng=rng).id == 2
    assert best(children, 9, {2: 1}, c=1.0, rng=rng).id == 1
    assert best([node(1, 0, 0), node(2, 0, 0)], 1, {1: 1}, c=1.0, rng=rng).id == 2
