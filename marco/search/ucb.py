"""The selection rule of the search: UCB1 on trees."""

import math
import random
from collections.abc import Mapping, Sequence

from marco.search.tree import Node


def ucb(value: float, visits: int, parent_visits: int, *, c: float) -> float:
    """v/N + C·sqrt(ln N(parent) / N): PAPER.md section 1, Selection (arXiv 2503.01461).

    `value` is the sum of rewards in [0, visits]; an unvisited node counts as infinite.
    """
    if visits == 0:
        return math.inf
    return value / visits + c * math.sqrt(math.log(parent_visits) / visits)


def best(
    children: Sequence[Node],
    parent_visits: int,
    underway: Mapping[int, int],
    *,
    c: float,
    rng: random.Random,
) -> Node:
    """The child of highest UCB; ties are drawn at random.

    `underway` holds, by node id, the rollouts below a child that have no reward yet. Each counts as
    a visit without one (virtual loss), so that the leaves of a wave differ.
    """
    scores = [ucb(n.value, n.visits + underway.get(n.id, 0), parent_visits, c=c) for n in children]
    top = max(scores)
    return rng.choice([n for n, s in zip(children, scores, strict=True) if s == top])
