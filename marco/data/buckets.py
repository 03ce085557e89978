"""Length buckets: short and long are relative within one problem's tree (arXiv 2503.01461)."""

from collections.abc import Sequence
from typing import Literal, assert_never

from marco.data.chains import Chain

Bucket = Literal["shortest", "medium", "longest", "any"]


def in_bucket(chains: Sequence[Chain], bucket: Bucket) -> list[Chain]:
    """The chains of a length bucket, the most typical of it first.

    Give the chains of one tree with one verdict. A bucket is a third of them, rounded up, so that
    it is never empty where there is a chain: with one or two chains the buckets overlap, rather
    than that small trees drop out of some buckets and the buckets hold different problems. Equal
    lengths are ordered by text. Shortest: shortest first; longest: longest first; medium: nearest
    to the median rank first; any: all of them, shortest first.
    """
    ranked = sorted(chains, key=lambda chain: (chain.tokens, chain.text))
    n = len(ranked)
    third = -(-n // 3)
    match bucket:
        case "shortest":
            return ranked[:third]
        case "longest":
            return ranked[n - third :][::-1]
        case "medium":
            start = (n - third) // 2
            # Twice the distance to the median rank (n - 1) / 2; the shorter of two equals first.
            ranks = sorted(range(start, start + third), key=lambda i: (abs(2 * i - n + 1), i))
            return [ranked[i] for i in ranks]
        case "any":
            return ranked
    assert_never(bucket)
