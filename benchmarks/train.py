"""Preference training beside TRL's DPOTrainer: the same pairs in the same optimiser steps.

python benchmarks/train.py
python benchmarks/train.py --pairs-per-tree tree --repeats 1 --no-long
python benchmarks/train.py --gpu    # a random Llama of 1B parameters, longer chains, MFU

The pairs are the embedded main job's own (`tree`), and pairs of the same trees, 1, 4 or 16 of each.
Five ways take turns, each in a process of its own, so that its peak memory is its own:

  ours          `train_student` as `train.py` calls it; the reference is a stage before
  trl_default   DPOTrainer as it comes: fp32 weights, bf16 autocast, gradient checkpointing, its own
                forward of the reference model; the batch is the step
  trl_best      the fastest of TRL's options for this machine, found first on a few steps (or told
                by --best); its reference is computed before, as ours is
  ours_in_its_dtype  the same with weights and optimiser in the dtype of TRL's best
  sft           as many tokens a step as our packed row holds, in chains of one length that share
                nothing, by plain PyTorch with our optimiser: what unique tokens alone allow

A step's time is from the end of the step before to its own end, so that packing and padding count.
The first steps do not. TRL is given our token ids, in our order, since its own reading of a chat
template ends a chain with one more token; the gradient's norm in the first step must be the same.

The last line is one JSON object. What is "over" something is ours divided by the other: above 1 is
faster, and for memory below 1 is smaller. Runs out of `--limit-gb` are ended, and their peak is a
lower bound. Needs the extra `bench`.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measures import peak_mb, rounded, status_mb

ROOT = Path(__file__).resolve().parents[1]
SEED = 0
MAX_TOKENS = 100_000  # no pair is left out
WARM_UP = 1  # steps that do not count
Row = dict[str, Any]
Options = dict[str, Any]
Figures = dict[str, Any]

# What the embedded model becomes with another vocabulary or on a GPU. The weights are random.
LONG_SHAPE = {
    "vocab_size": 131_072,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 65_536,
}
GPU_SHAPE = {  # Llama-3.2-1B
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 65_536,
}

# TRL's options, in which `dtype` and `attn_implementation` are of the weights, `forward` the pairs
# of one forward, `keeps_blocks` whether the process gets the settings of memory that ours gets,
# and the rest arguments of DPOConfig. Not among them: padding_free, which 1.16 switches off again;
# use_kernels, which loads from the hub; and on a CPU use_liger_kernel, which is Triton alone.
BASE: Options = {
    "precompute_ref_log_probs": True,
    "gradient_checkpointing": False,
    "bf16": True,
    "keeps_blocks": True,
    "forward": 1,
    "attn_implementation": "eager",
}
AXES: dict[str, list[Options]] = {  # {} is as it was
    "pairs a forward": [{}, {"forward": 2}, {"forward": 4}, {"forward": 16}],
    "attention": [{}, {"attn_implementation": "sdpa"}],
    "allocator": [{}, {"keeps_blocks": False}],
    "precision": [
        {},  # fp32 weights, bf16 autocast
        {"bf16": False},
        {"dtype": "bfloat16", "bf16": False},  # loses updates below 1/256 of a weight
    ],
}
GPU_AXES: dict[str, list[Options]] = {
    "pairs a forward": [{}, {"forward": 8}, {"forward": 16}, {"forward": 32}],
    "kernels": [{}, {"use_liger_kernel": True}] if find_spec("liger_kernel") else [{}],
    "precision": [{}, AXES["precision"][2]],
}


# --- The ways. Each runs in a process that imports only what it needs. ---


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
    import yaml

    from marco.training.config import TrainerConfig

    name = "gpu" if device == "cuda" else "cpu"
    text = (ROOT / "conf" / "trainer" / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    stages = {stage: values.pop(stage) for stage in ("sft", "preference")}
    sizes = {"epochs": 1, "batch_size": batch, "max_tokens": MAX_TOKENS}
    sizes["samples"] = values["samples"] | {"every_steps": 0}
    return TrainerConfig(**values | stages["preference"] | sizes | settings)


def held_mb(device: str) -> float:
    """The most memory that this process has held on its device."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mb()


# --- What starts them. ---


class Runner:
    """Runs a way in a process of its own, and ends it before the machine is out of memory."""

    def __init__(self, device: str, *, limit_gb: float, scratch: Path) -> None:
        from marco.processes import CHILD_ENVIRONMENT
        from marco.training.allocator import FEW_KERNELS

        self.device, self.limit_mb, self.scratch = device, limit_gb * 1024, scratch
        self.kept_blocks = CHILD_ENVIRONMENT | FEW_KERNELS

    def __call__(self, way: str, folder: Path, model: Path, **arguments: Any) -> Figures:
        """Its figures; `ended` tells that it ran out of memory, and its peak is a lower bound."""
        options = arguments.get("options", {})
        as_it_comes = way == "trl" and not options.get("keeps_blocks")
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONWARNINGS": "ignore",
        }
        environment |= {} if as_it_comes else self.kept_blocks
        order = {"folder": str(folder), "model": str(model), "device": self.device} | arguments
        command = [sys.executable, __file__, "--child", way, json.dumps(order)]
        out, log = self.scratch / "out", self.scratch / "log"
        with out.open("w") as stdout, log.open("w") as stderr:
            child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
            try:
                peak = self._watch(child)
            finally:
                child.kill()
                child.wait()
        if peak is not None:
            return {"ended": True, "peak_mb": peak}
        if child.returncode:
            raise RuntimeError(f"{way} failed:\n{log.read_text()[-3000:]}")
        return json.loads(out.read_text().strip().splitlines()[-1])

    def _watch(self, child: subprocess.Popen[bytes]) -> float | None:
        """Wait for the child; its peak where it was ended, else None."""
        while child.poll() is None:
            try:
                held = status_mb(child.pid, "VmRSS")
            except FileNotFoundError:
                continue
            available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
            if held > self.limit_mb or int(available) < 1024 * 1024:
                peak = status_mb(child.pid, "VmHWM")
                child.kill()
                return peak
            time.sleep(0.05)
        return None


def prepare(rows: Sequence[Row], folder: Path, model: Path, *, batch: int) -> list[Figures]:
    """Write `rows` for all ways, and return the sizes of their steps."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from marco.data.datasets import save
    from marco.training.data_module import epoch_order
    from marco.training.examples import read_examples

    folder.mkdir(parents=True)
    save(rows, folder, stats={})
    data = read_examples(folder, AutoTokenizer.from_pretrained(model), max_tokens=MAX_TOKENS)
    order = epoch_order(data.examples, seed=SEED, epoch=0)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    ids = [
        dict(zip(columns, map(list, (each.prompt, *each.completions)), strict=True))
        for each in order
    ]
    Dataset.from_list(ids).save_to_disk(str(folder / "trl"))
    steps = [_sizes(order[i : i + batch]) for i in range(0, len(order), batch)]
    (folder / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    return steps


def _sizes(examples: Sequence[Any]) -> Figures:
    """Tokens of a step: distinct ones, those that predict what DPO counts, and all unshared."""
    children: dict[tuple[int, int], int] = {}
    heads: set[int] = set()
    plain = completions = chains = 0
    for example in examples:
        first = len(example.prompt) - 1 + example.shared  # what is before cancels
        for completion in example.completions:
            node = -1
            for depth, token in enumerate([*example.prompt, *completion][:-1]):
                node = children.setdefault((node, token), len(children))
                if depth >= first:
                    heads.add(node)
            plain += len(example.prompt) + len(completion) - 1
            completions += len(completion)
            chains += 1
    return {
        "pairs": len(examples),
        "tokens": len(children),
        "heads": len(heads),
        "plain_tokens": plain,
        "completion_tokens": completions,
        "chains": chains,
    }


def own_rows(dataset: Path) -> list[Row]:
    """The pairs of a dataset folder, as they are."""
    from datasets import load_from_disk

    return load_from_disk(str(dataset / "dataset")).to_list()


def regrouped_rows(dataset: Path, model: Path, per_tree: int) -> list[Row]:
    """Pairs of the trees that the dataset is made from, so many of each that has as many."""
    from marco.data.datasets import build_pairs
    from marco.engines.prompts import ChatTokenizer
    from marco.search.tree import read_trees

    manifest = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    rows, _ = build_pairs(
        read_trees(Path(manifest["inputs"]["trees"]["path"])),
        encode=ChatTokenizer.load(model).encode,
        bucket="any",
        choice="shortest_prefix",
        per_tree=per_tree,
        max_tokens=768,
        classify=lambda _: (),
        drop=(),
        annotations=None,
        rng=random.Random(SEED),
    )
    return [row for tree in _by_tree(rows) if len(tree) == per_tree for row in tree]


def drawn(rows: Iterable[Row], count: int) -> list[Row]:
    """`count` rows of trees drawn in a fixed order."""
    trees = list(_by_tree(rows))
    random.Random(SEED).shuffle(trees)
    chosen = [row for tree in trees for row in tree][:count]
    if len(chosen) < count:
        raise SystemExit(f"there are only {len(chosen)} such pairs, not {count}: fewer --steps")
    return chosen


def _by_tree(rows: Iterable[Row]) -> Iterator[list[Row]]:
    for _, tree in groupby(rows, key=lambda row: row["id"]):
        yield list(tree)


class Words:
    """Texts of words that are one token each, to make chains of any length."""

    def __init__(self, model: Path) -> None:
        from marco.engines.prompts import ChatTokenizer

        self.chat = ChatTokenizer.load(model)
        found = (word.removeprefix("Ġ") for word in self.chat.tokenizer.get_vocab())
        known = sorted(word for word in found if word.isascii() and word.isalpha())
        self.words = [f" {word}" for word in known if len(self.chat.encode(f" {word}")) == 1]

    def drawn(self, count: int, rng: random.Random) -> str:
        return "".join(rng.choices(self.words, k=count))

    def stretched(self, row: Row, times: int) -> Row:
        """The same row with so many words for each of its tokens: it shares what it did."""
        sides = ("prompt", "chosen", "rejected")
        return {"id": row["id"]} | {side: self._longer(row[side], times) for side in sides}

    def _longer(self, messages: Sequence[Mapping[str, str]], times: int) -> list[dict[str, str]]:
        places = [
            times * token + i
            for token in self.chat.encode(messages[0]["content"])
            for i in range(times)
        ]
        text = "".join(self.words[place % len(self.words)] for place in places)
        return _message(messages[0]["role"], text)


def find_best(
    run: Callable[[Options], float], axes: Mapping[str, Sequence[Options]]
) -> tuple[Options, list[Figures]]:
    """The fastest options, one axis after the other; `run` gives pairs per second."""
    best, rate = BASE, run(BASE)
    tried = [{"options": best, "pairs_per_s": rate}]
    for choices in axes.values():
        faster = best
        for choice in choices[1:]:
            options = best | choice
            candidate = run(options)
            tried.append({"options": options, "pairs_per_s": candidate})
            if candidate > rate:
                faster, rate = options, candidate
        best = faster
    return best, tried


def measured(run: Runner, arguments: argparse.Namespace, model: Path) -> Figures:
    """All ways over all groupings of pairs, in turns."""
    scratch, device = run.scratch, run.device
    folders, batches, sizes = {}, {}, {}
    count = WARM_UP + arguments.steps
    words = Words(model) if arguments.stretch > 1 else None
    for name in arguments.pairs_per_tree:
        batch = max(arguments.batch, 16) if name == "16" else arguments.batch
        rows = (
            own_rows(arguments.dataset)
            if name == "tree"
            else regrouped_rows(arguments.dataset, model, int(name))
        )
        rows = drawn(rows, count * batch)
        if words is not None:
            rows = [words.stretched(row, arguments.stretch) for row in rows]
        folders[name], batches[name] = scratch / name, batch
        sizes[name] = prepare(rows, folders[name], model, batch=batch)[WARM_UP:]
        run("reference", folders[name], model, batch=batch)

    def pairs_per_s(figures: Figures, name: str) -> float:
        return batches[name] * len(figures["seconds"]) / sum(figures["seconds"])

    def few_steps(options: Options) -> float:
        name = arguments.pairs_per_tree[0]
        settings = {"batch": batches[name], "options": options}
        try:
            figures = run("trl", folders[name], model, steps=WARM_UP + 2, **settings)
        except RuntimeError as error:
            print(f"{options}: {error}", flush=True)
            return 0.0
        rate = 0.0 if figures.get("ended") else pairs_per_s(figures, name)
        print(f"TRL with {options}: {rate:.3f} pairs/s", flush=True)
        return rate

    if arguments.best is None:
        best, tried = find_best(few_steps, GPU_AXES if device == "cuda" else AXES)
    else:
        best, tried = arguments.best, []
    ways = {
        "ours": ("ours", {}),
        "trl_default": ("trl", {"options": {}, "steps": count}),
        "trl_best": ("trl", {"options": best, "steps": count}),
        "ours_in_its_dtype": ("ours", {"settings": {"precision": _dtype_of(best)}}),
        "sft": ("sft", {}),
    }
    runs: dict[str, dict[str, list[Figures]]] = {
        name: {way: [] for way in ways} for name in folders
    }
    for name, folder in folders.items():
        run("trl", folder, model, batch=batches[name], options=best, steps=0)
    for repeat in range(arguments.repeats):
        for name, folder in folders.items():
            for way, (kind, settings) in ways.items():
                figures = run(kind, folder, model, batch=batches[name], **settings)
                if figures.get("ended"):
                    raise SystemExit(f"{way} needs more than --limit-gb: {figures}")
                runs[name][way].append(figures)
                print(
                    f"{name}, {way}, {repeat}: {pairs_per_s(figures, name):.3f} pairs/s, "
                    f"{figures['peak_mb']:,.0f} MB, steps "
                    + " ".join(f"{seconds:.2f}" for seconds in figures["seconds"]),
                    flush=True,
                )
            _check_gradients(name, runs[name])

    def rates(name: str, way: str) -> list[float]:
        return [pairs_per_s(figures, name) for figures in runs[name][way]]

    def token_rates(name: str, way: str) -> list[float]:
        each = runs[name][way]
        return [sum(figures["tokens"]) / sum(figures["seconds"]) for figures in each]

    def peaks(name: str, way: str) -> list[float]:
        return [figures["peak_mb"] for figures in runs[name][way]]

    def ratios(figure: Callable[[str, str], list[float]], over: str) -> dict[str, float]:
        return {name: _over(figure, name, "ours", over) for name in folders}

    result: Figures = {
        "over_trl_default": ratios(rates, "trl_default"),
        "over_trl_best": ratios(rates, "trl_best"),
        "of_unique_token_limit": ratios(token_rates, "sft"),
        "peak_memory_over_trl_best": ratios(peaks, "trl_best"),
        "in_the_dtype_of_trl_best": {
            name: {
                "over_trl_best": _over(rates, name, "ours_in_its_dtype", "trl_best"),
                "peak_memory_over_trl_best": _over(peaks, name, "ours_in_its_dtype", "trl_best"),
            }
            for name in folders
        },
        "peak_memory_over_trl_default": ratios(peaks, "trl_default"),
        "pairs_per_s": {n: {w: _spread(rates(n, w)) for w in ways if w != "sft"} for n in folders},
        "tokens_per_s": {
            n: {w: _spread(token_rates(n, w)) for w in ("ours", "sft")} for n in folders
        },
        "peak_mb": {n: {w: _spread(peaks(n, w)) for w in ways} for n in folders},
        "sizes": {n: _means(sizes[n]) for n in folders},
        "trl_best": best,
        "tried": tried,
        "gradient_over_trl": {
            n: runs[n]["ours"][0]["grad_norm"] / runs[n]["trl_default"][0]["grad_norm"]
            for n in folders
        },
        "steps": arguments.steps,
        "repeats": arguments.repeats,
    }
    if device == "cuda":
        result["mfu"] = {
            n: {
                w: _mfu(_means(sizes[n]), statistics.median(rates(n, w)), arguments, plain=is_plain)
                for w, is_plain in (("ours", False), ("trl_default", True), ("trl_best", True))
            }
            for n in folders
        }
    return result


def _over(figure: Callable[[str, str], list[float]], name: str, way: str, over: str) -> float:
    return statistics.median(figure(name, way)) / statistics.median(figure(name, over))


def _dtype_of(options: Options) -> str:
    """What our trainer calls the precision of TRL's options."""
    if options.get("bf16"):
        return "bf16-mixed"
    return "bf16-true" if options.get("dtype") == "bfloat16" else "32-true"


def _check_gradients(name: str, runs: Mapping[str, Sequence[Figures]]) -> None:
    """The first step must be the same training, whatever the precision rounds."""
    norms = {way: each[0]["grad_norm"] for way, each in runs.items() if way != "sft"}
    if max(norms.values()) > 1.1 * min(norms.values()):
        raise SystemExit(f"{name}: the gradients of the first step differ: {norms}")


def _mfu(
    step: Mapping[str, float], pairs_per_s: float, arguments: argparse.Namespace, *, plain: bool
) -> float:
    """Share of the device's peak that the step's own matrix products need, without attention.

    A reference forward, recomputed activations and padding count as time, not as work.
    """
    shape = GPU_SHAPE
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    of_attention = 2 * hidden * hidden * (1 + shape["num_key_value_heads"] / heads)
    of_layer = of_attention + 3 * hidden * shape["intermediate_size"]
    body, head = shape["num_hidden_layers"] * of_layer, hidden * shape["vocab_size"]
    tokens, predicted = (
        (step["plain_tokens"], step["completion_tokens"])
        if plain
        else (step["tokens"], step["heads"])
    )
    flops = 6 * (body * tokens + head * predicted) / step["pairs"]
    return flops * pairs_per_s / (arguments.peak_tflops * 1e12)


def long_chains(run: Runner, arguments: argparse.Namespace) -> Figures:
    """Peak memory with pairs of long chains that share half, and a large vocabulary.

    A step of short chains comes before, so that the optimiser's state is there. Where one of the
    two was ended, its peak is a lower bound, and `long_chain_bound` tells what the ratio is then.
    """
    from marco.training.data_module import epoch_order

    model, batch = run.scratch / "long_model", arguments.long_batch
    run("save_model", model, arguments.model, shape=LONG_SHAPE)
    rng, words = random.Random(SEED), Words(model)
    places: list[Any] = [SimpleNamespace(prompt=place) for place in range(2 * batch)]
    first = {each.prompt for each in epoch_order(places, seed=SEED, epoch=0)[:batch]}
    lengths = [128 if place in first else arguments.long_tokens for place in range(2 * batch)]
    rows = [_pair_of_words(words, tokens, rng, name=str(i)) for i, tokens in enumerate(lengths)]
    folder = run.scratch / "long"
    short, long = prepare(rows, folder, model, batch=batch)
    assert short["plain_tokens"] < long["plain_tokens"], (short, long)
    figures = {}
    for name, way, settings in (
        ("reference", "reference", {}),
        # TRL recomputes activations as it comes.
        ("ours", "ours", {"settings": {"gradient_checkpointing": True}}),
        ("trl_default", "trl", {"options": {}, "steps": 2}),
    ):
        if name == "ours" and figures["reference"].get("ended"):
            continue  # there is no reference to train with
        figures[name] = run(way, folder, model, batch=batch, **settings)
        print(f"long chains, {name}: {figures[name]}", flush=True)
    of_ours = [figures[way] for way in ("reference", "ours") if way in figures]
    ours_mb = max(each["peak_mb"] for each in of_ours)
    bounds = {
        (False, False): "exact",
        (True, False): "lower bound",
        (False, True): "upper bound",
        (True, True): "unknown: both were ended",
    }
    ended = any(each.get("ended") for each in of_ours), bool(figures["trl_default"].get("ended"))
    return {
        "long_chain_memory_over_trl_default": ours_mb / figures["trl_default"]["peak_mb"],
        "long_chain_bound": bounds[ended],
        "long_chains": figures | {"sizes": long, "limit_mb": run.limit_mb},
    }


def _pair_of_words(words: Words, tokens: int, rng: random.Random, *, name: str) -> Row:
    """Two chains of so many tokens, prompt included, that share the first half."""
    row: Row = {"id": name, "prompt": _message("user", words.drawn(20, rng))}
    shared = words.drawn(tokens // 2 - len(words.chat.prompt(row["prompt"])), rng)
    for side in ("chosen", "rejected"):  # which end in one token more
        row[side] = _message("assistant", shared + words.drawn(tokens // 2 - 1, rng))
    return row


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def _spread(values: Sequence[float]) -> Figures:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _means(steps: Sequence[Figures]) -> Figures:
    return {name: statistics.mean(step[name] for step in steps) for name in steps[0]}


def _newest_pairs() -> Path:
    found = (ROOT / "outputs" / "dataset").glob("pairs-*/manifest.json")
    folders = sorted((path.parent for path in found), key=lambda path: path.stat().st_mtime)
    if not folders:
        raise SystemExit("outputs/dataset holds no pairs: `make table` makes them, or --dataset")
    return folders[-1]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        order = json.loads(sys.argv[3])
        places = {name: Path(order.pop(name)) for name in ("folder", "model")}
        print(json.dumps(WAYS[sys.argv[2]](**places, **order)))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, help="newest outputs/dataset/pairs-*")
    parser.add_argument(
        "--model", type=Path, default=ROOT / "outputs" / "models" / "smollm2-135m-instruct"
    )
    parser.add_argument(
        "--pairs-per-tree", nargs="*", default=["tree", "1", "4", "16"], help="or `tree`"
    )
    parser.add_argument("--batch", type=int, help="pairs a step: 8, on a GPU 32; at least a tree's")
    parser.add_argument("--steps", type=int, default=3, help="that count")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--best", type=json.loads, help="TRL's options, in place of the search")
    parser.add_argument("--no-long", action="store_true", help="without the long chains")
    parser.add_argument("--long-tokens", type=int, default=16_384)
    parser.add_argument("--long-batch", type=int, default=8, help="pairs of their step, as TRL's")
    parser.add_argument("--limit-gb", type=float, default=20.0, help="memory of one process")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--stretch", type=int, help="tokens for each token: 1, on a GPU 8")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU, dense bf16")
    arguments = parser.parse_args()
    arguments.dataset = arguments.dataset or _newest_pairs()
    arguments.batch = arguments.batch or (32 if arguments.gpu else 8)
    arguments.stretch = arguments.stretch or (8 if arguments.gpu else 1)
    load = os.getloadavg()[0]
    from marco.termination import exit_on_sigterm

    exit_on_sigterm()  # so that no child goes on alone
    result: Figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        device = "cuda" if arguments.gpu else "cpu"
        run = Runner(device, limit_gb=arguments.limit_gb, scratch=Path(scratch))
        model = arguments.model
        if arguments.gpu:
            model = run.scratch / "model"
            run("save_model", model, arguments.model, shape=GPU_SHAPE)
        if arguments.pairs_per_tree:
            result |= measured(run, arguments, model)
        if not arguments.no_long:
            result |= long_chains(run, arguments)
    import torch

    result |= {"threads": torch.get_num_threads(), "load_before": load, "device": device}
    print(json.dumps(rounded(result)))


if __name__ == "__main__":
    main()
