"""The pairs of the last epoch as a file beside the log: by hand, killed, and on two devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marco.training import fit
from marco.training.config import LossConfig, TrainerConfig
from marco.training.figures import PairFigures, pair_line
from marco.training.pairs_csv import COLUMNS, read_pairs

from .test_devices import by_fork, write_order
from .test_fit import history, preference, reference, train

Settings = Callable[..., TrainerConfig]


def test_a_line_by_hand():
    pair = PairFigures(row=3, chosen=2.0, rejected=-0.5, chosen_tokens=9, rejected_tokens=14)
    line = pair_line(pair, step=7, scale=0.1)
    assert list(line) == list(COLUMNS)
    assert list(line.values()) == pytest.approx([3, 7, 2.5, -5, 9, 14, 0.2, -0.05])


def test_each_pair_has_the_line_of_its_last_step(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref, out = reference(start, pairs_folder, tmp_path / "ref"), tmp_path / "out"
    train(start, pairs_folder, out, trainer=settings(epochs=3), reference=ref, loss=preference())
    found, log = read_pairs(out), history(out)
    assert [line["row"] for line in found] == list(range(8))
    # 8 pairs in steps of 3 are 3 steps an epoch: the last three of nine.
    assert {line["step"] for line in found} == {7, 8, 9} and len(log) == 9
    for step in (7, 8, 9):
        own = [line for line in found if line["step"] == step]
        mean = 0.1 * sum(line["margin_nats"] for line in own) / len(own)
        assert mean == pytest.approx(log[step - 1]["rewards/margin"])
    for line in found:
        margin = (line["chosen_reward"] - line["rejected_reward"]) / 0.1
        assert margin == pytest.approx(line["margin_nats"])
        # Rows are right chains of 25 bytes with wrong ones of 2 or 3 words " so" more.
        assert (line["chosen_tokens"], line["length_difference_tokens"]) == (
            25,
            -6 if line["row"] % 2 == 0 else -9,
        )


def test_completions_have_no_pairs(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    train(start, sft_folder, tmp_path / "out", trainer=settings())
    assert not (tmp_path / "out/pairs.csv").exists()


class Killed(BaseException):
    """What no handler catches."""


@pytest.mark.parametrize("step", [4, 5])
def test_a_run_that_was_broken_off_writes_the_same_bytes(
    start: Path,
    pairs_folder: Path,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    # Two epochs of 3 steps; what is known of the pairs is of both when it ends.
    common: dict[str, Any] = {
        "trainer": settings(checkpoint_every_s=0.0),
        "reference": ref,
        "loss": preference(),
    }
    train(start, pairs_folder, tmp_path / "undisturbed", **common)
    write = fit._Watch.write

    def killed(self: Any, module: Any) -> None:
        write(self, module)
        if len(module.history) == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fit._Watch, "write", killed)
        with pytest.raises(Killed):
            train(start, pairs_folder, tmp_path / "broken", **common)
    assert not (tmp_path / "broken/pairs.csv").exists()
    train(start, pairs_folder, tmp_path / "broken", **common)
    for name in ("pairs.csv", "metrics.csv"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("undisturbed", "broken"))
        assert one == other


@pytest.mark.slow
def test_the_first_of_two_devices_writes_the_pairs_of_both(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    common = {"micro_batch_tokens": 90, "batch_size": 5}
    train(
        start,
        pairs_folder,
        tmp_path / "one",
        trainer=settings(**common),
        reference=ref,
        loss=preference(),
    )
    inputs = {"start": start, "dataset": pairs_folder, "reference": ref}
    write_order(tmp_path / "two", settings(devices=2, **common), inputs)
    assert by_fork(tmp_path / "two") == [0, 0]
    for ours, theirs in zip(
        read_pairs(tmp_path / "one"), read_pairs(tmp_path / "two"), strict=True
    ):
        assert theirs == pytest.approx(ours, abs=1e-4)


def test_a_loss_without_beta_has_log_ratios_as_rewards(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    loss = {"preference": {"name": "ipo", "tau": 0.1}, "alpha": 0.0, "mask": "none", "weights": {}}
    train(
        start,
        pairs_folder,
        tmp_path / "out",
        trainer=settings(),
        reference=ref,
        loss=LossConfig.model_validate(loss),
    )
    for line in read_pairs(tmp_path / "out"):
        assert line["chosen_reward"] - line["rejected_reward"] == pytest.approx(line["margin_nats"])
