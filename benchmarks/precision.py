"""bfloat16 over float32 on this processor, in turns, each in a process of its own.

python benchmarks/precision.py

Tokens per second of the engine (48 sequences at once, their prompts cached), and of a forward and
backward of 2 chains of 128 tokens. What is above 1 is faster in bfloat16: `if_bf16` in `conf/`
should choose it where both are, and float32 where both are not.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

from measures import apart, rounded
from search import MODELS, config_of

from marco.engines.registry import model_folder
from marco.processes import quiet
from marco.processor import multiplies_bf16
from marco.tasks.registry import make_task

DTYPES = ("bfloat16", "float32")
SEQUENCES, NEW_TOKENS = 48, 24
CHAINS, LENGTH = 2, 128


def engine(dtype: str) -> float:
    """Tokens that vLLM writes per second."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from marco.engines.prompts import ChatTokenizer
    from marco.engines.vllm import start

    config = config_of(f"task.test={SEQUENCES}", f"engine.dtype={dtype}")
    model = model_folder("embedded", cache=MODELS)
    tokenizer = ChatTokenizer.load(model)
    prompts = [
        TokensPrompt(
            prompt_token_ids=list(tokenizer.prompt([{"role": "user", "content": p.problem}]))
        )
        for p in make_task(config.task).problems("test")
    ]
    llm = start(model, config.engine)
    seconds = 0.0
    for tokens in (1, NEW_TOKENS):  # the first time for the cache
        sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        started = time.perf_counter()
        llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
    return SEQUENCES * NEW_TOKENS / seconds


def training(dtype: str) -> float:
    """Tokens per second of a forward and backward; the optimiser's step is float32 in either."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(
        model_folder("embedded", cache=MODELS),
        dtype=getattr(torch, dtype),
        attn_implementation="eager",
    )
    net.train()
    ids = torch.randint(net.config.vocab_size, (CHAINS, LENGTH))
    seconds = 0.0
    for _ in range(2):  # the first is slower
        started = time.perf_counter()
        net(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        seconds = time.perf_counter() - started
    return CHAINS * LENGTH / seconds


PARTS: dict[str, Callable[[str], float]] = {"engine": engine, "training": training}


def rate_of(part: str, dtype: str) -> float:
    rate: float = apart(__file__, "--part", part, dtype)
    print(f"{part} {dtype}: {rounded(rate)} tokens/s", flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", nargs=2, help="one part alone, in this process")
    arguments = parser.parse_args()
    quiet()
    if arguments.part:
        part, dtype = arguments.part
        print(json.dumps(PARTS[part](dtype)))
        return
    rates: dict[str, dict[str, list[float]]] = {p: {d: [] for d in DTYPES} for p in PARTS}
    for turn in range(arguments.repeats):
        for part in PARTS:
            for dtype in DTYPES if turn % 2 == 0 else reversed(DTYPES):
                rates[part][dtype].append(rate_of(part, dtype))
    ratios = {
        part: statistics.median(own["bfloat16"]) / statistics.median(own["float32"])
        for part, own in rates.items()
    }
    print(
        json.dumps(
            rounded({"multiplies_bf16": multiplies_bf16(), "over_float32": ratios, "rates": rates})
        )
    )


if __name__ == "__main__":
    main()
