"""Preference pairs: a correct and a wrong chain of the same tree (arXiv 2503.01461)."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile, zip_longest
from typing import Literal, assert_never

from marco.data.buckets import Bucket, in_bucket
from marco.data.chains import Chain

PairChoice = Literal["shortest_prefix", "longest_prefix", "random"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A chosen and a rejected chain, and how many leading tokens they share."""

    chosen: Chain
    rejected: Chain
    shared_prefix_tokens: int


def pairs_of(
    correct: Sequence[Chain],
    wrong: Sequence[Chain],
    *,
    bucket: Bucket,
    choice: PairChoice,
    per_tree: int,
    rng: random.Random,
) -> list[Pair]:
    """At most `per_tree` distinct pairs of one tree's chains; none where a side is empty.

    Both sides come from the same length bucket, so that being chosen does not go with being
    long. Every chosen chain gets its first rejected one before any gets its second. Bucket `any`
    takes the chosen chains in an order drawn by `rng`.
    """
    chosen, rejected = in_bucket(correct, bucket), in_bucket(wrong, bucket)
    if bucket == "any":
        rng.shuffle(chosen)
    ranked = [_candidates(chain, rejected, choice, rng) for chain in chosen]
    return list(islice(_round_robin(ranked), per_tree))


def shared_prefix(left: Sequence[float], right: Sequence[float]) -> int:
    """The length of the longest common prefix of two sequences, of token ids as a rule."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _candidates(
    chosen: Chain, rejected: Sequence[Chain], choice: PairChoice, rng: random.Random
) -> list[Pair]:
    """The pairs of one chosen chain, the preferred first."""
    pairs = [
        Pair(
            chosen=chosen,
            rejected=chain,
            shared_prefix_tokens=shared_prefix(chosen.ids, chain.ids),
        )
        for chain in rejected
    ]
    match choice:
        case "shortest_prefix":
            return sorted(pairs, key=lambda pair: (pair.shared_prefix_tokens, *_likeness(pair)))
        case "longest_prefix":
            return sorted(pairs, key=lambda pair: (-pair.shared_prefix_tokens, *_likeness(pair)))
        case "random":
            return rng.sample(pairs, len(pairs))
    assert_never(choice)


def _likeness(pair: Pair) -> tuple[int, str]:
    """Orders pairs with equal prefixes: the smaller difference of lengths first, then by text."""
    return abs(pair.chosen.tokens - pair.rejected.tokens), pair.rejected.text


def _round_robin(ranked: Sequence[Sequence[Pair]]) -> Iterator[Pair]:
    for turn in zip_longest(*ranked):
        yield from (pair for pair in turn if pair is not None)
