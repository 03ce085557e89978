"""Whole training runs on a tiny model."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from marco.errors import UserError
from marco.training import module
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
    }
    return train_student(start=start, dataset=dataset, out=out, **arguments | changes)


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).state_dict()


@pytest.mark.parametrize(
    "precision", ["bf16-master", "bf16-mixed", "bf16-true", "32-true", "64-true"]
)
def test_sft_learns_and_leaves_a_plain_folder(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings, precision: str
):
    out = tmp_path / "out"
    trainer = settings(precision=precision, epochs=4, save_dtype="bfloat16")
    metrics = train(start, sft_folder, out, trainer=trainer)
    rows = history(out)
    # 8 examples in steps of 3 are 3 steps an epoch, the last of them with 2 examples.
    assert len(rows) == metrics["steps"] == 12
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[0]["loss"] == rows[0]["loss/sft"]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(out).chat_template
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


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_infinity_stops_the_run_and_no_weight_takes_it(
    start: Path,
    sft_folder: Path,
    tmp_path: Path,
    settings: Settings,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
):
    terms, steps = module.ChainModule.terms, []

    def broken(self: module.ChainModule, *given: Any) -> Any:
        found, pairs = terms(self, *given)
        steps.append(self)
        if len(self.history) == 2:
            loss = found["loss"]
            found["loss"] = loss * math.inf if what == "loss" else Infinite.apply(loss)
        return found, pairs

    monkeypatch.setattr(module.ChainModule, "terms", broken)
    with pytest.raises(UserError, match=f"the {what} is not finite at step 3 of 6; lower"):
        train(start, sft_folder, tmp_path / "out", trainer=settings())
    assert all(p.isfinite().all() for p in steps[-1].trained)


class Infinite(torch.autograd.Function):
    """The same value, and a gradient that overflows."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * math.inf


def test_folder_that_is_no_model(sft_folder: Path, tmp_path: Path, settings: Settings):
    with pytest.raises(UserError, match="config.json is missing"):
        train(tmp_path, sft_folder, tmp_path / "out", trainer=settings())


def slow_twin(model: Any, batch: Any) -> torch.Tensor:
    """Log-probabilities by one ordinary forward for each chain of a packed batch."""
    model.set_attn_implementation("sdpa")
    rows = torch.zeros(batch.chain_mask.shape, dtype=torch.float64)
    ends, ids = batch.layout.ends.tolist(), batch.input_ids[0].tolist()
    for chain, mask in enumerate(batch.chain_mask):
        targets = batch.chain_targets[chain, mask]
        if not len(targets):
            continue
        last = batch.head_rows[batch.target_head_rows[targets]].tolist()[-1]
        path = [row for row in range(last + 1) if ends[row] > last]
        tokens = [ids[row] for row in path]
        logits = model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        own = logits[-len(targets) :].gather(1, batch.target_ids[targets, None])[:, 0]
        rows = rows.index_put((torch.tensor(chain), mask.nonzero()[:, 0]), own)
    return rows


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_packed_and_unpacked_training_give_the_same_weights_after_20_steps(
    start: Path,
    pairs_folder: Path,
    tmp_path: Path,
    settings: Settings,
    alpha: float,
    monkeypatch: pytest.MonkeyPatch,
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    trainer = settings(epochs=10, batch_size=4, learning_rate=1e-3, warmup_ratio=0.0)
    common = {"trainer": trainer, "reference": ref, "loss": preference(alpha=alpha)}
    train(start, pairs_folder, tmp_path / "packed", **common)
    monkeypatch.setattr(module, "chain_logps", slow_twin)
    train(start, pairs_folder, tmp_path / "unpacked", **common)
    assert len(history(tmp_path / "unpacked")) == 20
    first, packed, unpacked = (
        weights(start),
        *map(weights, (tmp_path / "packed", tmp_path / "unpacked")),
    )
    moved = max((packed[name] - first[name]).abs().max() for name in first)
    apart = max((packed[name] - unpacked[name]).abs().max() for name in first)
    # The library's RMSNorm rounds to fp32 inside, and the weights are saved in it.
    assert apart < 1e-6 < 1e-3 < moved


@pytest.mark.parametrize(
    ("precision", "lora"),
    [
        ("64-true", None),
        ("bf16-master", None),
        ("bf16-master", {"rank": 2, "alpha": 4, "dropout": 0.2, "targets": "all-linear"}),
    ],
)
def test_gradient_checkpointing_changes_nothing(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings, precision: str, lora: Any
):
    ref = reference(start, pairs_folder, tmp_path / "ref", precision)
    for name, checkpointing in (("kept", False), ("again", True)):
        trainer = settings(precision=precision, lora=lora, gradient_checkpointing=checkpointing)
        train(
            start,
            pairs_folder,
            tmp_path / name,
            trainer=trainer,
            reference=ref,
            loss=preference(),
        )
    kept, again = weights(tmp_path / "kept"), weights(tmp_path / "again")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_an_adapter_starts_at_the_reference_and_leaves_a_plain_folder(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", "down_proj"]}
    out = tmp_path / "out"
    trainer = settings(lora=lora, epochs=4)
    train(start, pairs_folder, out, trainer=trainer, reference=ref, loss=preference(alpha=0.0))
    rows = history(out)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["loss"] < 0.95 * rows[0]["loss"]
    first, trained = weights(start), weights(out)
    assert first.keys() == trained.keys()
    changed = {name for name in first if not torch.equal(first[name], trained[name])}
    assert changed and all(name.split(".")[-2] in ("q_proj", "down_proj") for name in changed)
    for name in changed:
        assert torch.linalg.matrix_rank(trained[name] - first[name], rtol=1e-4) <= 2


@pytest.mark.parametrize(("layer", "what"), [("lm_head", "head"), ("embed_tokens", "embedding")])
def test_an_adapter_that_the_loss_would_not_see_is_refused(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings, layer: str, what: str
):
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": ["q_proj", layer]}
    with pytest.raises(UserError, match=f"targets: an adapter beside the {what} is not supported"):
        train(start, sft_folder, tmp_path / "out", trainer=settings(lora=lora))


def test_what_steps_share_and_drop_by_hand(start: Path, tmp_path: Path, settings: Settings):
    # In bytes, and one end token each: prompt 4, chosen 3, rejected 4, of which they share one.
    # A last token is predicted, but predicts nothing.
    rows = [
        {"prompt": "1+1=", "chosen": "22", "rejected": "233"},
        {"prompt": "1+1=", "chosen": "2", "rejected": "3" * 300},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ref = tmp_path / "ref"
    told = write_reference(
        start=start,
        dataset=path,
        out=ref,
        precision="64-true",
        micro_batch_tokens=120,
        max_tokens=200,
        accelerator="cpu",
    )
    assert (told["examples"], told["dropped_too_long"]) == (1, 1)
    trainer = settings(max_tokens=200)
    metrics = train(
        start, path, tmp_path / "out", trainer=trainer, reference=ref, loss=preference()
    )
    assert (metrics["examples"], metrics["dropped_too_long"]) == (1, 1)
    for row in history(tmp_path / "out"):
        assert row["tokens"] == 3 + 1 + 1 + 1 + 2  # 1+1, =, the shared 2, then 2, and 33
        assert row["unique_share"] == pytest.approx(8 / (6 + 7))
        assert row["shared_prefix_share"] == pytest.approx(2 * 1 / (3 + 4))


def test_an_adapter_of_layers_that_are_not_there_is_refused(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    lora = {"rank": 2, "alpha": 4, "dropout": 0.0, "targets": ["no_proj"]}
    with pytest.raises(UserError, match="trainer.lora: .*no_proj"):
        train(start, sft_folder, tmp_path / "out", trainer=settings(lora=lora))


def test_training_ends_when_the_held_out_problems_say_so(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    validation = {"share": 0.5, "every_steps": 2, "metric": "loss", "patience": 2}
    out = tmp_path / "out"
    # At this rate the held-out loss soon rises.
    trainer = settings(epochs=200, learning_rate=0.1, validation=validation)
    metrics = train(start, pairs_folder, out, trainer=trainer, reference=ref, loss=preference())
    assert (metrics["examples"], metrics["held_out"]) == (4, 4)
    seen = [row["validation/loss"] for row in history(out) if "validation/loss" in row]
    best = seen.index(min(seen))
    assert len(seen) == best + 1 + 2
    assert metrics["steps"] == 2 * len(seen) < 400


def test_a_held_out_share_must_leave_something_on_both_sides(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    validation = {"share": 0.05, "every_steps": 1, "metric": "loss", "patience": 0}
    with pytest.raises(UserError, match="of 4 problems leaves nothing on one side"):
        train(start, sft_folder, tmp_path / "out", trainer=settings(validation=validation))


def test_a_figure_that_held_out_problems_do_not_have_is_told(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    validation = {"share": 0.5, "every_steps": 1, "metric": "rewards/margin", "patience": 1}
    with pytest.raises(
        UserError, match="metric=rewards/margin: held-out problems have no such figure; .* loss"
    ):
        train(start, sft_folder, tmp_path / "out", trainer=settings(validation=validation))


def test_a_tokenizer_without_a_pad_token_trains_the_same(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    unpadded = tmp_path / "unpadded"
    shutil.copytree(start, unpadded)
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(unpadded)
    assert AutoTokenizer.from_pretrained(unpadded).pad_token is None
    for folder in (start, unpadded):
        train(folder, sft_folder, tmp_path / f"of-{folder.name}", trainer=settings())
    padded, plain = (weights(tmp_path / f"of-{folder.name}") for folder in (start, unpadded))
    assert all(torch.equal(padded[name], plain[name]) for name in padded)


def test_pairs_whose_chains_are_equal_are_left_out(start: Path, tmp_path: Path, settings: Settings):
    equal = {"prompt": prompt(1), "chosen": assistant("a\n"), "rejected": assistant("a\n")}
    folder = write_rows(tmp_path / "equal", [equal] * 2)
    common = {"trainer": settings(epochs=1), "loss": preference(0.0)}
    ref = reference(start, folder, tmp_path / "ref")
    with pytest.raises(UserError, match="no token counts in the loss"):
        train(start, folder, tmp_path / "none", reference=ref, **common)
    folder = write_rows(tmp_path / "one", [equal, equal | {"rejected": assistant("b\n")}])
    ref = reference(start, folder, tmp_path / "ref of one")
    metrics = train(start, folder, tmp_path / "out", reference=ref, **common)
    assert (metrics["examples"], metrics["dropped_without_loss"]) == (1, 1)


def test_weights_by_kind_need_a_dataset_that_tells_kinds(
    start: Path, pairs_folder: Path, tmp_path: Path, settings: Settings
):
    ref = reference(start, pairs_folder, tmp_path / "ref")
    with pytest.raises(UserError, match="does not tell the kinds of its nodes"):
        train(
            start,
            pairs_folder,
            tmp_path / "out",
            trainer=settings(),
            reference=ref,
            loss=preference(reflection=0.5),
        )
