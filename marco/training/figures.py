"""What the log says of the pairs of a step."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from marco.losses import PairLogps
from marco.training.data_module import MicroBatch


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """One pair: log-ratios to the reference over the tokens that the loss counts, in nats.

    Where the loss takes no reference, they are log-probabilities.
    """

    row: int
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def margin(self) -> float:
        return self.chosen - self.rejected

    @classmethod
    def of(cls, part: MicroBatch, pairs: PairLogps) -> "list[PairFigures]":
        """The pairs of a micro-batch."""
        with torch.no_grad():
            columns = (
                pairs.chosen_log_ratio.tolist(),
                pairs.rejected_log_ratio.tolist(),
                pairs.chosen_lengths.tolist(),
                pairs.rejected_lengths.tolist(),
            )
        return [
            cls(row=row, chosen=c, rejected=r, chosen_tokens=m, rejected_tokens=n)
            for row, c, r, m, n in zip(part.rows, *columns, strict=False)
        ]


def pair_line(pair: PairFigures, *, step: int, scale: float) -> dict[str, float]:
    """A line of `pairs.csv`: a pair in the optimiser step (from 1 on) that took it, as it began.

    The margin is in nats; rewards are log-ratios times `scale` (beta). Lengths are those of the
    whole completions, in tokens.
    """
    return {
        "row": pair.row,
        "step": step,
        "margin_nats": pair.margin,
        "length_difference_tokens": pair.chosen_tokens - pair.rejected_tokens,
        "chosen_tokens": pair.chosen_tokens,
        "rejected_tokens": pair.rejected_tokens,
        "chosen_reward": scale * pair.chosen,
        "rejected_reward": scale * pair.rejected,
    }


def pair_statistics(
    pairs: Sequence[PairFigures],
    *,
    scale: float,
    has_reference: bool,
    thirds: Mapping[int, str],
) -> dict[str, float]:
    """Means over the pairs of a step; rewards are log-ratios times `scale` (beta).

    A third of the lengths that no pair of the step is of, and a correlation of what does not vary,
    are left out.
    """
    if not pairs:
        return {}
    mean = statistics.fmean
    margins = [scale * pair.margin for pair in pairs]
    figures = {
        "rewards/chosen": scale * mean(pair.chosen for pair in pairs),
        "rewards/rejected": scale * mean(pair.rejected for pair in pairs),
        "rewards/margin": mean(margins),
        "rewards/accuracy": mean(margin > 0 for margin in margins),
        "length/chosen": mean(pair.chosen_tokens for pair in pairs),
        "length/rejected": mean(pair.rejected_tokens for pair in pairs),
    }
    if has_reference:
        figures["rewards/chosen_below_reference"] = mean(pair.chosen < 0 for pair in pairs)
    for third in ("short", "medium", "long"):
        own = [m for m, p in zip(margins, pairs, strict=True) if thirds[p.row] == third]
        if own:
            figures[f"rewards/margin/{third}"] = mean(own)
    differences = [float(pair.chosen_tokens - pair.rejected_tokens) for pair in pairs]
    if len(set(margins)) > 1 and len(set(differences)) > 1:
        figures["margin_length_correlation"] = statistics.correlation(margins, differences)
    return figures
