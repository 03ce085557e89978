"""The learning rate over a run, as a share of its peak."""

import math
from typing import Literal


def rate_share(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    schedule: Literal["linear", "cosine", "constant"],
) -> float:
    """Share of the peak learning rate at optimiser step `step` (0-based) of `total_steps`.

    It rises linearly to 1 at the end of the warm-up, then stays, or falls to 0 after the last step.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    left = (total_steps - step) / max(total_steps - warmup_steps, 1)
    left = min(max(left, 0.0), 1.0)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
