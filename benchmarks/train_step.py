"""A preference step packed by trees, against the same pairs padded side by side.

python benchmarks/train_step.py --repeats 5

The model has the shape of SmolLM2-135M and random weights; the pairs have the sizes of the default
run's. Both ways alternate in one process, so that a noisy machine slows both. The last line is one
JSON object: median seconds of a step (forward and backward), and their ratio.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import pad
from transformers import LlamaConfig, LlamaForCausalLM

from marco.logps import chain_logps
from marco.training import tree_attention
from marco.training.tree_batch import TokenChain, TreeBatch

TEMPLATE, PROBLEM, CHOSEN, REJECTED, SHARED = 25, 45, 101, 106, 40  # tokens
PAIRS_OF_A_PROBLEM, PROBLEMS = 3, 3


def model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).bfloat16()


def pairs() -> list[TokenChain]:
    rng = random.Random(0)

    def draw(count: int) -> list[int]:
        return [rng.randrange(49152) for _ in range(count)]

    template, chains = draw(TEMPLATE), []
    for _ in range(PROBLEMS):
        prompt, prefix = template + draw(PROBLEM), draw(SHARED)
        for _ in range(PAIRS_OF_A_PROBLEM):
            chains += [(prompt, prefix + draw(n - SHARED)) for n in (CHOSEN, REJECTED)]
    return chains


def packed(net: LlamaForCausalLM, chains: list[TokenChain]) -> torch.Tensor:
    net.set_attn_implementation(tree_attention.NAME)
    return chain_logps(net, TreeBatch.pack(chains)).sum()


def padded(net: LlamaForCausalLM, chains: list[TokenChain]) -> torch.Tensor:
    net.set_attn_implementation("sdpa")
    width = max(len(prompt) + len(completion) for prompt, completion in chains)
    rows = [torch.tensor([*prompt, *completion]) for prompt, completion in chains]
    ids = torch.stack([pad(row, (0, width - len(row))) for row in rows])
    counts = torch.zeros(ids.shape, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(chains):
        counts[i, len(prompt) : len(prompt) + len(completion)] = True
    filled = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
    logits = net(input_ids=ids, attention_mask=filled.long()).logits[:, :-1].float()
    logps = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(dim=-1)
    return logps[counts[:, 1:]].sum()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    net, chains = model(), pairs()
    ways: dict[str, Callable[..., torch.Tensor]] = {"packed": packed, "padded": padded}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values = {}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            total = way(net, chains)
            (-total).backward()
            net.zero_grad()
            values[name] = float(total.detach())
            if repeat:  # the first fills caches
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    batch = TreeBatch.pack(chains)
    plain = sum(len(prompt) + len(completion) for prompt, completion in chains)
    figures = {
        "packed_s": round(medians["packed"], 3),
        "padded_s": round(medians["padded"], 3),
        "padded_over_packed": round(medians["padded"] / medians["packed"], 2),
        "packed_tokens": batch.tokens,
        "plain_tokens": plain,
        "packed_tokens_per_s": round(batch.tokens / medians["packed"]),
        "relative_difference": abs(values["packed"] / values["padded"] - 1),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
