"""The ways of `train.py`, one a process, each of which imports only what it needs.

python benchmarks/train_ways.py WAY '{"folder": ..., "model": ..., "device": ..., ...}'

The last line is one JSON object: seconds of each step that counts, and the peak of memory.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measures import peak_mb

ROOT = Path(__file__).resolve().parents[1]
SEED = 0
MAX_TOKENS = 100_000  # no pair is left out
WARM_UP = 1  # steps that do not count
Options = dict[str, Any]
Figures = dict[str, Any]


def ours(
    folder: Path, model: Path, *, batch: int, device: str, settings: Options | None = None, **_: Any
) -> Figures:
    """Our training of the pairs in `folder`, by the function that the stage calls.

    Times come from the progress that it tells after each step, tokens from its log.
    """
    import csv

    from marco.training.config import LossConfig
    from marco.training.fit import train_student

    clock = _progress_clock(device)
    preference = {"name": "dpo", "beta": 0.1}  # as TRL's default
    loss = {"preference": preference, "alpha": 0.0, "mask": "none", "weights": {}}
    with tempfile.TemporaryDirectory() as out:
        train_student(
            start=model,
            dataset=folder,
            reference=folder / "reference",
            out=Path(out),
            loss=LossConfig.model_validate(loss),
            trainer=_trainer_config(device, batch, **settings or {}),
            seed=SEED,
            run="benchmark",
            progress=clock,
        )
        with (Path(out) / "metrics.csv").open(encoding="utf-8") as file:
            log = list(csv.DictReader(file))
    steps = json.loads((folder / "steps.json").read_text(encoding="utf-8"))
    return clock.figures() | {
        # Once each: a tree that is split over two forwards computes its path in both.
        "tokens": [step["tokens"] for step in steps[WARM_UP:]],
        "grad_norm": float(log[0]["grad_norm"]),
    }


def reference(folder: Path, model: Path, *, batch: int, device: str, **_: Any) -> Figures:
    """Our reference of the pairs in `folder`."""
    from marco.training.fit import write_reference

    trainer = _trainer_config(device, batch)
    write_reference(
        start=model,
        dataset=folder,
        out=folder / "reference",
        precision=trainer.precision,
        micro_batch_tokens=trainer.micro_batch_tokens,
        max_tokens=trainer.max_tokens,
        accelerator=trainer.accelerator,
    )
    return {"peak_mb": held_mb(device)}


def trl(
    folder: Path,
    model: Path,
    *,
    batch: int,
    device: str,
    options: Options,
    steps: int,
    **_: Any,
) -> Figures:
    """TRL's training of the same pairs; 0 steps only compute the reference, which TRL keeps."""
    from datasets import load_from_disk
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class OfTokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # token ids already

    clock, norms = Clock(device), []

    class Ticks(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            norms.append(logs.get("grad_norm"))

    options = {key: value for key, value in options.items() if key != "keeps_blocks"}
    forward = min(options.pop("forward", batch), batch)
    of_weights = {
        key: options.pop(key) for key in ("dtype", "attn_implementation") if key in options
    }
    data = load_from_disk(str(folder / "trl"))
    longest = max(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in data
    )
    if longest > 1024:  # its default, which would cut the chains
        options["max_length"] = None
    with tempfile.TemporaryDirectory() as out:
        arguments = DPOConfig(
            output_dir=out,
            per_device_train_batch_size=forward,
            gradient_accumulation_steps=batch // forward,
            max_steps=steps or -1,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            logging_first_step=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=device == "cpu",
            model_init_kwargs=of_weights or None,
            seed=SEED,
            **options,
        )
        trainer = OfTokens(
            model=str(model),
            args=arguments,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(model),
            callbacks=[Ticks()],
        )
        if not steps:
            return {"peak_mb": held_mb(device)}
        trainer.train()
    return clock.figures() | {"grad_norm": float(norms[0])}


def sft(folder: Path, model: Path, *, device: str, batch: int, **_: Any) -> Figures:
    """Plain training on random chains that share nothing, with the sizes of our packed steps.

    The chains of a step have one length, so that nothing is padded and attention is plainly causal;
    they predict as many tokens as our packed row has rows that predict.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForCausalLM

    from marco.training.master_weights import MasterWeights, clip_scale

    trainer = _trainer_config(device, batch)
    net = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16, attn_implementation="eager" if device == "cpu" else "sdpa"
    ).to(device)
    net.train()
    masters = MasterWeights(net.parameters())
    optimizer = torch.optim.AdamW(masters.masters, lr=trainer.learning_rate, fused=True)
    clock, tokens = Clock(device), []
    clock.tick()
    for step in json.loads((folder / "steps.json").read_text(encoding="utf-8")):
        mean_length = step["plain_tokens"] / step["chains"]
        chains = max(round(step["tokens"] / mean_length), 1)
        length, predicted = round(step["tokens"] / chains), round(step["heads"] / chains)
        at_once = max(round(trainer.micro_batch_tokens / length), 1)
        for start in range(0, chains, at_once):
            rows = min(at_once, chains - start)
            ids = torch.randint(net.config.vocab_size, (rows, length + 1), device=device)
            hidden = net.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
            logits = net.lm_head(hidden[:, -predicted:]).float().flatten(0, 1)
            loss = cross_entropy(logits, ids[:, -predicted:].flatten(), reduction="sum")
            (loss / (chains * predicted)).backward()
            del hidden, logits, loss
        masters.step(optimizer, scale=clip_scale(masters.norm(), most=trainer.max_grad_norm))
        clock.tick()
        tokens.append(chains * length)
    return clock.figures() | {"tokens": tokens[WARM_UP:]}


def save_model(folder: Path, model: Path, *, shape: Mapping[str, int], **_: Any) -> Figures:
    """Random weights of another shape, with the tokenizer of `model`, whose ids are fewer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = LlamaConfig(
        **shape,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.bfloat16,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {}


WAYS: dict[str, Callable[..., Figures]] = {
    "ours": ours,
    "reference": reference,
    "trl": trl,
    "sft": sft,
    "save_model": save_model,
}


class Clock:
    """When each step ended, and the most memory until the last of them."""

    def __init__(self, device: str) -> None:
        self.device, self.ends, self.peak_mb = device, [], 0.0

    def tick(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.peak_mb = held_mb(self.device)

    def figures(self) -> Figures:
        ends = self.ends[WARM_UP:]
        seconds = [after - before for before, after in zip(ends, ends[1:], strict=False)]
        return {"seconds": seconds, "peak_mb": self.peak_mb}


def _progress_clock(device: str) -> Any:
    """A clock in place of the display of progress, which is told when a step has ended."""
    from marco.progress import Progress

    clock = Clock(device)

    class ProgressClock(Progress):
        figures = staticmethod(clock.figures)

        def __init__(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def update(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def rate(self, amount: float) -> int:
            return 0

        def close(self) -> None:
            pass

    return ProgressClock


def _trainer_config(device: str, batch: int, **settings: Any) -> Any:
    """What `conf/trainer/` has for preference training, in one epoch."""
    from omegaconf import OmegaConf

    from marco.config import TrainersConfig
    from marco.training.config import TrainerConfig

    name = "gpu" if device == "cuda" else "cpu"
    file = OmegaConf.load(ROOT / "conf" / "trainer" / f"{name}.yaml")
    trainers = TrainersConfig.model_validate(OmegaConf.to_container(file, resolve=True))
    sizes = {"epochs": 1, "batch_size": batch, "max_tokens": MAX_TOKENS}
    sizes["samples"] = trainers.shared["samples"] | {"every_steps": 0}
    return TrainerConfig(**trainers.shared | trainers.preference | sizes | settings)


def held_mb(device: str) -> float:
    """The most memory that this process has held on its device."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mb()


if __name__ == "__main__":
    order = json.loads(sys.argv[2])
    places = {name: Path(order.pop(name)) for name in ("folder", "model")}
    print(json.dumps(WAYS[sys.argv[1]](**places, **order)))
