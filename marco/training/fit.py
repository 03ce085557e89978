"""Train a student from a dataset folder, and write the reference that a preference loss needs."""

import csv
import json
import logging
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from marco.errors import UserError
from marco.losses import PREFERENCE_LOSSES
from marco.progress import Progress
from marco.tasks.problem import Problem
from marco.termination import exit_on_sigterm, uninterrupted
from marco.training import checkpoint
from marco.training.allocator import LONG_ROW, give_back_large_blocks, keep_few_kernels
from marco.training.config import Accelerator, LossConfig, Precision, TrainerConfig
from marco.training.data_module import ChainDataModule, Packer, Sizes, Step, Steps, length_thirds
from marco.training.examples import Example, ExampleSet, by_prompt, read_examples
from marco.training.live import LiveLog
from marco.training.module import ChainModule
from marco.training.pairs_csv import FILE as PAIRS
from marco.training.reference import Reference, reference_logps
from marco.training.samples import Probe, sample
from marco.training.strategies import gather, strategy_of
from marco.training.student import add_adapter, load_student, merge_adapter, save_student

CHECKPOINTS = "checkpoint"  # the folder, in that of the student


def train_student(
    *,
    start: Path,
    dataset: Path | str,
    reference: Path | None,
    out: Path,
    loss: LossConfig,
    trainer: TrainerConfig,
    seed: int,
    run: str,
    probe: tuple[Any, Sequence[Problem]] | None = None,
    progress: type[Progress] | None = None,
) -> dict[str, float]:
    """Train the model in `start` on `dataset` and save it, with its log, in `out`.

    `reference` is a folder of `write_reference` for the same start and dataset, where the loss uses
    one. `probe` is a task, and the problems that the student is sampled on meanwhile. `run` names
    the run, by all that its result depends on: one that was broken off goes on from its last
    checkpoint in `out`, with bitwise the same weights and log on a CPU; the folder of checkpoints
    is left to the caller. Returns the metrics of `metrics.json`.
    Raises `UserError` for unusable folders, a loss that does not fit the dataset, a reference or
    checkpoint of something else, and a loss that is not finite.
    """
    started = time.monotonic()
    _check_device(trainer.accelerator)
    keep_few_kernels()
    torch.manual_seed(seed)
    model, tokenizer = load_student(start, precision=trainer.weights)
    data = read_examples(dataset, tokenizer, max_tokens=trainer.max_tokens)
    _check_fit(loss, data, dataset, reference)
    if any(example.longest > LONG_ROW for example in data.examples):
        give_back_large_blocks()
    uses_reference = _uses_reference(loss)
    loaded = _load_reference(reference, data) if uses_reference else None
    if trainer.lora is not None:
        model = add_adapter(model, trainer.lora)
    if trainer.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trained, held_out = split(data.examples, share=trainer.validation.share, seed=seed)
    packer = Packer(loss, loaded)
    taught = tuple(filter(packer.teaches, trained))
    if not taught:
        raise UserError(
            f"{dataset}: no token counts in the loss: the chains of each pair are equal, or masked"
        )
    sizes = Sizes(
        batch_size=trainer.batch_size,
        micro_batch_tokens=trainer.micro_batch_tokens,
        epochs=trainer.epochs,
    )
    steps = ChainDataModule(replace(data, examples=taught), packer, sizes, seed=seed)
    module = ChainModule(
        model,
        loss,
        trainer,
        total_steps=steps.total_steps,
        thirds=length_thirds(data.examples),
        seed=seed,
    )
    watch = _Watch(
        checkpoints=out / CHECKPOINTS,
        run=run,
        saved=checkpoint.load(out / CHECKPOINTS, run=run, strategy=trainer.strategy),
        probe=_probe(probe, tokenizer, trainer),
        tokenizer=tokenizer,
        validation=Steps(held_out, packer, sizes, seed=seed).step(held_out) if held_out else None,
        bar=progress("train", steps.total_steps, "steps") if progress is not None else None,
        live=LiveLog(out),
    )
    with watch.kept_if_told():
        _run(module, steps, trainer, watch)
        counts = {
            "examples": float(len(taught)),
            "held_out": float(len(held_out)),
            "dropped_too_long": float(data.dropped),
            "dropped_without_loss": float(len(trained) - len(taught)),
        }
        metrics = counts | _metrics(module, time.monotonic() - started)
        if trainer.strategy == "fsdp":
            module.model = gather(module.model)
        if not module.is_first:
            return metrics
        out.mkdir(parents=True, exist_ok=True)
        if trainer.lora is not None:
            merge_adapter(module.model)
        save_student(module.model, tokenizer, out, dtype=trainer.save_dtype)
        if module.pairs_seen:
            # By row: of several devices the order within a step is another.
            _write_lines(out / PAIRS, [line for _, line in sorted(module.pairs_seen.items())])
        _write_log(out, module.history, metrics)
        watch.live.end()
    return metrics


def write_reference(
    *,
    start: Path,
    dataset: Path | str,
    out: Path,
    precision: Precision,
    micro_batch_tokens: int,
    max_tokens: int,
    accelerator: Accelerator,
    progress: type[Progress] | None = None,
) -> dict[str, float]:
    """Save in `out` the per-token log-probabilities of `dataset` under the model in `start`.

    Rows longer than `max_tokens` are left out. Take the precision that training will use, so that
    the margin h starts at 0. An adapter begins as nothing, so with LoRA too this is the model
    without it. Returns counts and seconds; raises `UserError` for unusable folders.
    """
    started = time.monotonic()
    _check_device(accelerator)
    keep_few_kernels()
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


def split(
    examples: Sequence[Example], *, share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples to train on, and those of a `share` of the problems, held out."""
    groups = list(by_prompt(examples))
    count = round(share * len(groups))
    if share and not 0 < count < len(groups):
        raise UserError(
            f"trainer.validation.share={share} of {len(groups)} problems leaves nothing on one "
            "side; take another share, or 0"
        )
    held_out = set(random.Random(f"validation:{seed}").sample(range(len(groups)), count))
    sides: tuple[list[Example], list[Example]] = [], []
    for i, group in enumerate(groups):
        sides[i in held_out].extend(group)
    return tuple(sides[0]), tuple(sides[1])


@dataclass(kw_only=True)
class _Watch(pl.Callback):
    """What goes on around the steps: checkpoints, samples, validation, display, and live log."""

    checkpoints: Path
    run: str
    saved: Mapping[str, Any] | None
    probe: Probe | None
    tokenizer: Any
    validation: Step | None
    bar: Progress | None
    live: LiveLog

    def __post_init__(self) -> None:
        self.seconds = 0.0
        self.last: Mapping[str, Any] | None = None
        self.written = self.began = time.monotonic()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.saved is not None:
            checkpoint.restore(pl_module, self.saved)
            pl_module.pairs_seen.update(self.saved["pairs_seen"])
            self.saved = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Lightning has put a handler of its own in place, which goes on with a step.
        exit_on_sigterm()
        if pl_module.is_first:
            self.live.begin(pl_module.history)
        self.written = time.monotonic()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.began = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds += time.monotonic() - self.began
        module: ChainModule = pl_module
        if self.bar is not None:
            loss = f"{module.history[-1]['loss']:.4f}"
            rate = round(module.tokens / self.seconds)
            self.bar.update(len(module.history), loss=loss, tokens_per_s=rate)
        with uninterrupted():
            self.look(module)
            if module.is_first:
                self.live.add(len(module.history), module.history[-1])
            trainer.should_stop = trainer.should_stop or module.has_stalled()
            is_due = time.monotonic() - self.written >= module.settings.checkpoint_every_s
            # All devices write together, so the clock of one decides.
            if trainer.strategy.broadcast(is_due):
                self.write(module)

    def look(self, module: ChainModule) -> None:
        """Add samples and held-out problems to the last step's figures, if that is due."""
        done, last = len(module.history), module.history[-1]
        if self.probe is not None and done % self.probe.every_steps == 0:
            last |= sample(module.model, self.tokenizer, self.probe)
        if self.validation is not None and done % module.settings.validation.every_steps == 0:
            last |= module.validate(self.validation)

    def write(self, module: ChainModule) -> None:
        """Save where the run stands (FSDP gathers it from all devices)."""
        if module.is_first or module.settings.strategy == "fsdp":
            state = self.state_of(module)
            if module.is_first:
                checkpoint.save(self.checkpoints, state)
        self.written = time.monotonic()

    def state_of(self, module: ChainModule) -> dict[str, Any]:
        """Where the run stands, its pairs with it."""
        return checkpoint.state_of(module, run=self.run) | {"pairs_seen": module.pairs_seen}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        # Of shards all devices would have to gather it, and a signal may reach only one.
        if pl_module.is_first and pl_module.settings.strategy != "fsdp":
            self.last = self.state_of(pl_module)

    @contextmanager
    def kept_if_told(self) -> Iterator[None]:
        """Write a checkpoint where SIGTERM comes after the last step, as the student is saved."""
        try:
            yield
        except SystemExit:
            if self.last is not None:
                checkpoint.save(self.checkpoints, self.last)
            raise

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        # SIGTERM: after a step, by `uninterrupted`, or between two. After the last one the model is
        # no longer what a checkpoint holds, and `kept_if_told` writes it.
        if isinstance(exception, SystemExit) and pl_module.history and self.last is None:
            self.look(pl_module)
            self.write(pl_module)


def _run(
    module: ChainModule, steps: ChainDataModule, settings: TrainerConfig, watch: _Watch
) -> None:
    lightning_log = logging.getLogger("pytorch_lightning")
    level = lightning_log.level
    # Its banner names devices and adverts, at every row of a sweep.
    lightning_log.setLevel(logging.WARNING)
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=strategy_of(settings),
            max_epochs=1,  # the steps of all epochs are one pass of the data module
            # The other precisions are how the weights are stored, which load_student settled.
            precision="bf16-mixed" if settings.precision == "bf16-mixed" else "32-true",
            logger=False,
            callbacks=[watch],
            log_every_n_steps=1,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            # Lightning 2.6.6 still makes a LeafSpec, which torch 2.13 deprecates.
            warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\)", FutureWarning)
            # What is told to one of several devices, all do together, after the same step.
            with uninterrupted() if settings.world_size > 1 else nullcontext():
                trainer.fit(module, datamodule=steps)
    finally:
        lightning_log.setLevel(level)
    module.seconds = watch.seconds
    if watch.bar is not None:
        watch.bar.close()


def _check_device(accelerator: Accelerator) -> None:
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator is gpu, but torch sees no GPU; use trainer=cpu")


def _uses_reference(loss: LossConfig) -> bool:
    return loss.preference is not None and PREFERENCE_LOSSES[loss.preference.name].uses_reference


def _check_fit(
    loss: LossConfig, data: ExampleSet, dataset: Path | str, reference: Path | None
) -> None:
    if (loss.preference is not None) != data.is_pairs:
        wants, has = ("pairs", "completions") if loss.preference else ("completions", "pairs")
        raise UserError(f"{dataset}: holds {has}, but this loss needs {wants}")
    if loss.preference is not None and _uses_reference(loss) and reference is None:
        raise UserError(f"the loss {loss.preference.name} needs a reference: write it first")
    if loss.weights and (untold := [e.row for e in data.examples if not all(e.kinds)]):
        raise UserError(
            f"{dataset}: row {untold[0]} does not tell the kinds of its nodes, which loss.weights "
            "needs; build it from trees, or set loss.weights={}"
        )


def _load_reference(folder: Path | None, data: ExampleSet) -> Reference:
    assert folder is not None
    reference = Reference.load(folder)
    if reference.fingerprint != data.fingerprint:
        raise UserError(
            f"{folder}: this reference was computed for another dataset or tokenizer "
            f"(fingerprint {reference.fingerprint}, expected {data.fingerprint}); write it again"
        )
    return reference


def _probe(
    probe: tuple[Any, Sequence[Problem]] | None, tokenizer: Any, trainer: TrainerConfig
) -> Probe | None:
    if probe is None or trainer.samples.every_steps == 0 or trainer.strategy == "fsdp":
        return None
    task, problems = probe
    return Probe.of(task, problems[: trainer.samples.problems], tokenizer, trainer.samples)


def _metrics(module: ChainModule, seconds: float) -> dict[str, float]:
    history = module.history
    return {
        "steps": float(len(history)),
        "tokens": sum(row["tokens"] for row in history),
        "seconds": seconds,
        "tokens_per_second": module.tokens / module.seconds if module.seconds else 0.0,
        **{f"last/{name}": value for name, value in history[-1].items()},
    }


def _write_log(
    out: Path, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]
) -> None:
    _write_lines(out / "metrics.csv", [{"step": i, **row} for i, row in enumerate(history, 1)])
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: Sequence[Mapping[str, float]]) -> None:
    """Write lines as CSV, with the columns of all of them in the order in which they come up."""
    columns = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
