"""Train a student from a dataset folder, and write the reference that a preference loss needs."""

import csv
import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from marco.errors import UserError
from marco.progress import Progress
from marco.training.config import Accelerator, LossConfig, Precision, TrainerConfig
from marco.training.data_module import ChainDataModule
from marco.training.examples import ExampleSet, read_examples
from marco.training.module import ChainModule, PreferenceModule, SFTModule
from marco.training.reference import Reference, reference_logps
from marco.training.student import load_student, save_student


def train_student(
    *,
    start: Path,
    dataset: Path,
    reference: Path | None,
    out: Path,
    loss: LossConfig,
    trainer: TrainerConfig,
    seed: int,
    lineage: Mapping[str, str],
    progress: type[Progress] | None = None,
) -> dict[str, float]:
    """Train the model in `start` on `dataset` and save it, with its log, in `out`.

    `reference` is a folder of `write_reference` for the same start and dataset; a preference loss
    needs it, SFT alone does not. `lineage` goes into the model card. Returns the metrics of
    `metrics.json`. Raises `UserError` for unusable folders, a loss that does not fit the dataset, a
    reference of another dataset, and a loss that is not finite.
    """
    started = time.monotonic()
    _check_device(trainer.accelerator)
    torch.manual_seed(seed)
    model, tokenizer = load_student(start, precision=trainer.precision)
    data = read_examples(dataset, tokenizer, max_tokens=trainer.max_tokens)
    _check_fit(loss, data, dataset, reference)
    loaded = _load_reference(reference, data) if loss.preference is not None else None
    steps = ChainDataModule(
        data,
        loaded,
        batch_size=trainer.batch_size,
        micro_batch_tokens=trainer.micro_batch_tokens,
        seed=seed,
    )
    kind = SFTModule if loss.preference is None else PreferenceModule
    total_steps = trainer.epochs * steps.steps_per_epoch
    module = kind(model, loss, trainer, total_steps=total_steps)
    bar = progress("train", total_steps, "steps") if progress is not None else None
    _run(module, steps, trainer, bar)
    settings = {"loss": loss.model_dump(), "trainer": trainer.model_dump(), "seed": seed}
    out.mkdir(parents=True, exist_ok=True)
    save_student(
        module.model, tokenizer, out, dtype=trainer.save_dtype, settings=settings, lineage=lineage
    )
    metrics = _metrics(module.history, data, time.monotonic() - started)
    _write_log(out, module.history, metrics)
    return metrics


def write_reference(
    *,
    start: Path,
    dataset: Path,
    out: Path,
    precision: Precision,
    micro_batch_tokens: int,
    max_tokens: int,
    accelerator: Accelerator,
    progress: type[Progress] | None = None,
) -> dict[str, float]:
    """Save in `out` the per-token log-probabilities of `dataset` under the model in `start`.

    Rows longer than `max_tokens` are left out. Take the precision that training will use, so that
    the margin h starts at 0. Returns counts and seconds; raises `UserError` for unusable folders.
    """
    started = time.monotonic()
    _check_device(accelerator)
    model, tokenizer = load_student(start, precision=precision)
    device = "cuda" if accelerator == "gpu" else "cpu"
    model.eval().to(device)
    data = read_examples(dataset, tokenizer, max_tokens=max_tokens)
    bar = progress("reference", len(data.examples), "rows") if progress is not None else None

    def tell(done: int, tokens: int) -> None:
        if bar is not None:
            bar.update(done, tokens_per_s=bar.rate(tokens))

    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        reference = reference_logps(
            model,
            data,
            micro_batch_tokens=micro_batch_tokens,
            on_group_done=tell,
        )
    if bar is not None:
        bar.close()
    out.mkdir(parents=True, exist_ok=True)
    reference.save(out)
    return {
        "examples": float(len(data.examples)),
        "dropped_too_long": float(data.dropped),
        "tokens": float(len(reference.values)),
        "seconds": time.monotonic() - started,
    }


class _StepProgress(pl.Callback):
    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = pl_module.history[-1]
        self.bar.update(
            len(pl_module.history),
            loss=f"{last['loss']:.4f}",
            tokens_per_s=round(last["tokens_per_second"]),
        )


def _run(
    module: ChainModule,
    steps: ChainDataModule,
    settings: TrainerConfig,
    bar: Progress | None,
) -> None:
    lightning_log = logging.getLogger("pytorch_lightning")
    level = lightning_log.level
    # Its banner names devices and adverts, at every row of a sweep.
    lightning_log.setLevel(logging.WARNING)
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            max_epochs=settings.epochs,
            # The other precisions are how the weights are stored, which load_student settled.
            precision="bf16-mixed" if settings.precision == "bf16-mixed" else "32-true",
            logger=False,
            callbacks=[_StepProgress(bar)] if bar is not None else [],
            log_every_n_steps=1,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            # Lightning 2.6.6 still makes a LeafSpec, which torch 2.13 deprecates.
            warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\)", FutureWarning)
            trainer.fit(module, datamodule=steps)
    finally:
        lightning_log.setLevel(level)
    if bar is not None:
        bar.close()


def _check_device(accelerator: Accelerator) -> None:
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator is gpu, but torch sees no GPU; use trainer=cpu")


def _check_fit(loss: LossConfig, data: ExampleSet, dataset: Path, reference: Path | None) -> None:
    if (loss.preference is not None) != data.is_pairs:
        wants, has = ("pairs", "completions") if loss.preference else ("completions", "pairs")
        raise UserError(f"{dataset}: holds {has}, but this loss needs {wants}")
    if loss.preference is not None and reference is None:
        raise UserError(f"the loss {loss.preference.name} needs a reference: write it first")


def _load_reference(folder: Path | None, data: ExampleSet) -> Reference:
    assert folder is not None
    reference = Reference.load(folder)
    if reference.fingerprint != data.fingerprint:
        raise UserError(
            f"{folder}: this reference was computed for another dataset or tokenizer "
            f"(fingerprint {reference.fingerprint}, expected {data.fingerprint}); write it again"
        )
    return reference


def _metrics(
    history: Sequence[Mapping[str, float]], data: ExampleSet, seconds: float
) -> dict[str, float]:
    tokens = sum(row["tokens"] for row in history)
    busy = sum(row["tokens"] / row["tokens_per_second"] for row in history)
    return {
        "steps": float(len(history)),
        "examples": float(len(data.examples)),
        "dropped_too_long": float(data.dropped),
        "tokens": tokens,
        "seconds": seconds,
        **{f"last/{name}": value for name, value in history[-1].items()},
        "tokens_per_second": tokens / busy,
    }


def _write_log(
    out: Path, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]
) -> None:
    with (out / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *history[0]])
        writer.writeheader()
        writer.writerows({"step": i, **row} for i, row in enumerate(history, start=1))
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
