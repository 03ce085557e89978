"""The selection rule of the search: UCB1 on trees."""

import math
import random
from collections.abc import Sequence

from marco.search.tree import Node


def ucb(value: float, visits: int, parent_visits: int, *, c: float) -> float:
    """v/N + C·sqrt(ln N(parent) / N): PAPER.md section 1, Selection (arXiv 2503.01461).

    `value` is the sum of rewards in [0, visits]; an unvisited node counts as infinite.
    """
    if visits == 0:
        return math.inf
    return value / visits + c * math.sqrt(math.log(parent_visits) / visits)


def best(children: Sequence[Node], parent_visits: int, *, c: float, rng: random.Random) -> Node:
    """The child of highest UCB; ties are drawn at random."""
    scores = [ucb(n.value, n.visits, parent_visits, c=c) for n in children]
    top = max(scores)
    return rng.choice([n for n, s in zip(children, scores, strict=True) if s == top])
