"""Whole training runs on a tiny model."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from marco.errors import UserError
from marco.training.config import LossConfig, TrainerConfig
from marco.training.fit import train_student, write_reference

from .conftest import assistant, prompt, write_rows

Settings = Callable[..., TrainerConfig]
SFT = LossConfig(preference=None, alpha=1.0, mask="none", weights={})


def preference(alpha: float = 1.0, mask: str = "none", **weights: float) -> LossConfig:
    knobs = {"name": "conservative", "beta": 0.1, "epsilon": 0.1}
    return LossConfig.model_validate(
        {"preference": knobs, "alpha": alpha, "mask": mask, "weights": weights}
    )


def reference(start: Path, dataset: Path, out: Path, precision: Any = "64-true") -> Path:
    write_reference(
        start=start,
        dataset=dataset,
        out=out,
        precision=precision,
        micro_batch_tokens=120,
        max_tokens=200,
        accelerator="cpu",
    )
    return out


def train(start: Path, dataset: Path, out: Path, **changes: Any) -> dict[str, float]:
    arguments: dict[str, Any] = {
        "reference": None,
        "loss": SFT,
        "seed": 0,
        "run": "test",
        "lineage": {},
    }
    return train_student(start=start, dataset=dataset, out=out, **arguments | changes)


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).state_dict()


@pytest.mark.parametrize("precision", ["bf16-master", "bf16-mixed", "32-true", "64-true"])
def test_sft_learns_and_leaves_a_plain_folder(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings, precision: str
):
    out = tmp_path / "out"
    trainer = settings(precision=precision, epochs=4, save_dtype="bfloat16")
    metrics = train(start, sft_folder, out, trainer=trainer, lineage={"start": "tiny"})
    rows = history(out)
    # 8 examples in steps of 3 are 3 steps an epoch, the last of them with 2 examples.
    assert len(rows) == metrics["steps"] == 12
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[0]["loss"] == rows[0]["loss/sft"]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert "- start: tiny" in (out / "README.md").read_text(encoding="utf-8")
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8")) == metrics


@pytest.mark.parametrize("mask", ["none", "all"])
def test_micro_batches_do_not_change_the_result(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings, mask: str
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    common = {"reference": ref, "loss": preference(mask=mask)}
    for size in (1, 200, 100_000):
        trainer = settings(micro_batch_tokens=size)
        train(start, pairs_folder, tmp_path / str(size), trainer=trainer, **common)
    whole = weights(tmp_path / "100000")
    for size in ("1", "200"):
        for name, weight in weights(tmp_path / size).items():
            # The library's RMSNorm rounds to fp32 inside.
            torch.testing.assert_close(weight, whole[name], rtol=0, atol=2e-5)


def test_preference_starts_at_no_margin_and_widens_it(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    out = tmp_path / "out"
    trainer = settings(epochs=5)
    train(start, pairs_folder, out, trainer=trainer, reference=ref, loss=preference(alpha=0.0))
    rows = history(out)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert rows[0]["rewards/margin"] == pytest.approx(0, abs=1e-3)
    assert rows[-1]["rewards/margin"] > 0.1
    assert rows[-1]["rewards/accuracy"] == 1
    # "<t>\nadd\n</t>\n<a>\n2\n</a>\n" is 24 bytes; the end token is one more.
    assert rows[0]["length/chosen"] == 25


def test_alpha_adds_the_sft_term(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    out = tmp_path / "out"
    loss = preference(alpha=1.5)
    train(start, pairs_folder, out, trainer=settings(), reference=ref, loss=loss)
    for row in history(out):
        assert row["loss"] == pytest.approx(row["loss/preference"] + 1.5 * row["loss/sft"])


def test_learning_rate_warms_up_and_falls(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    train(start, sft_folder, tmp_path / "out", trainer=settings())
    # 6 steps, 2 of warm-up (0.2 * 6 rounded up): 1/3, 2/3, then 4/4 down to 1/4 of the peak.
    rates = [row["learning_rate"] / 1e-2 for row in history(tmp_path / "out")]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4])


def test_same_seed_same_weights(start: Path, sft_folder: Path, tmp_path: Path, settings: Settings):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(start, sft_folder, tmp_path / out, trainer=settings(), seed=seed)
    first, again, other = (weights(tmp_path / out) for out in ("a", "b", "c"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_loss_must_fit_the_dataset(
    start: Path, sft_folder: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    out, trainer = tmp_path / "out", settings()
    with pytest.raises(UserError, match="holds pairs, but this loss needs completions"):
        train(start, pairs_folder, out, trainer=trainer)
    with pytest.raises(UserError, match="holds completions, but this loss needs pairs"):
        train(start, sft_folder, out, trainer=trainer, loss=preference())
    with pytest.raises(UserError, match="needs a reference"):
        train(start, pairs_folder, out, trainer=trainer, loss=preference())
    assert not out.exists()


def test_reference_of_other_data_is_refused(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    row = {"prompt": prompt(1), "chosen": assistant("a\n"), "rejected": assistant("b\n")}
    other = write_rows(tmp_path / "other", [row])
    ref = reference(start, other, tmp_path / "ref")
    with pytest.raises(UserError, match="another dataset or tokenizer"):
        train(
            start,
            pairs_folder,
            tmp_path / "out",
            trainer=settings(),
            loss=preference(),
            reference=ref,
        )


def test_loss_that_is_not_finite_stops_the_run(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(start)
    model.model.norm.weight.data.fill_(math.nan)
    model.save_pretrained(broken)
    AutoTokenizer.from_pretrained(start).save_pretrained(broken)
    with pytest.raises(UserError, match="the loss is not finite at step 1 of 6"):
        train(broken, sft_folder, tmp_path / "out", trainer=settings())


def test_folder_that_is_no_model(sft_folder: Path, tmp_path: Path, settings: Settings):
    with pytest.raises(UserError, match="config.json is missing"):
        train(tmp_path, sft_folder, tmp_path / "out", trainer=settings())
