"""The figures of a step's pairs, by hand."""

import pytest

from marco.training.figures import PairFigures, pair_statistics


def pair(row: int, chosen: float, rejected: float, lengths: tuple[int, int]) -> PairFigures:
    return PairFigures(
        row=row,
        chosen=chosen,
        rejected=rejected,
        chosen_tokens=lengths[0],
        rejected_tokens=lengths[1],
    )


THIRDS = {0: "short", 1: "short", 2: "long"}


def test_figures_by_hand():
    pairs = [pair(0, 2, 0, (4, 2)), pair(1, -1, 0, (3, 4)), pair(2, -1, -4, (9, 4))]
    figures = pair_statistics(pairs, scale=0.1, has_reference=True, thirds=THIRDS)
    # Margins 2, -1, 3; differences of length 2, -1, 5.
    assert figures == pytest.approx(
        {
            "rewards/chosen": 0.0,
            "rewards/rejected": 0.1 * -4 / 3,
            "rewards/margin": 0.1 * 4 / 3,
            "rewards/accuracy": 2 / 3,
            "rewards/chosen_below_reference": 2 / 3,
            "length/chosen": 16 / 3,
            "length/rejected": 10 / 3,
            "rewards/margin/short": 0.05,
            "rewards/margin/long": 0.3,
            # Deviations 2/3, -7/3, 5/3 and 0, -3, 3: 12 over the root of 78/9 times 18.
            "margin_length_correlation": 12 / (78 / 9 * 18) ** 0.5,
        }
    )


def test_a_correlation_of_what_does_not_vary_is_left_out():
    pairs = [pair(0, 2, 0, (4, 2)), pair(1, 1, 0, (5, 3))]
    figures = pair_statistics(pairs, scale=1.0, has_reference=True, thirds=THIRDS)
    assert "margin_length_correlation" not in figures
    assert pair_statistics([], scale=1.0, has_reference=True, thirds={}) == {}


def test_nothing_is_below_a_reference_that_a_loss_does_not_take():
    pairs = [pair(0, -20, -30, (4, 2))]
    figures = pair_statistics(pairs, scale=0.1, has_reference=False, thirds=THIRDS)
    assert "rewards/chosen_below_reference" not in figures
    assert figures["rewards/margin"] == pytest.approx(1.0)
