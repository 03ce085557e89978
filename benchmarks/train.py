"""Preference training beside TRL's DPOTrainer: the same pairs in the same optimiser steps.

python benchmarks/train.py
python benchmarks/train.py --pairs-per-tree tree --repeats 1 --no-long
python benchmarks/train.py --gpu    # a random Llama of 1B parameters, longer chains, MFU

The pairs are the embedded main job's own (`tree`), and pairs of the same trees, 1, 4 or 16 of each.
Five ways (train_ways.py) take turns, each in a process of its own, so that its peak is its own:

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
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from measures import rounded, status_mb
from train_pairs import Words, drawn, own_rows, pair_of_words, prepare, regrouped_rows
from train_ways import ROOT, SEED, WARM_UP, Figures, Options

WAYS = Path(__file__).with_name("train_ways.py")
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
        command = [sys.executable, str(WAYS), way, json.dumps(order)]
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
    rows = [pair_of_words(words, tokens, rng, name=str(i)) for i, tokens in enumerate(lengths)]
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
