"""What a student writes while it is trained: real samples, every so many steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from marco.engines.prompts import ChatTokenizer
from marco.tasks.problem import Problem
from marco.tasks.task import Task
from marco.tasks.verdict import CORRECT, NO_ANSWER
from marco.training import tree_attention
from marco.training.config import SamplesConfig

NGRAM = 4


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Problems of a task, with their prompts in token ids; `every_steps` optimiser steps."""

    task: Task
    problems: Sequence[Problem]
    prompts: Sequence[Sequence[int]]
    every_steps: int
    max_tokens: int

    @classmethod
    def of(
        cls, task: Task, problems: Sequence[Problem], tokenizer: Any, settings: SamplesConfig
    ) -> "Probe":
        """The student sees the bare problems, as in its evaluation."""
        chat = ChatTokenizer(tokenizer, source=tokenizer.name_or_path)
        prompts = [chat.prompt([{"role": "user", "content": p.problem}]) for p in problems]
        return cls(
            task=task,
            problems=problems,
            prompts=prompts,
            every_steps=settings.every_steps,
            max_tokens=settings.max_tokens,
        )


@torch.no_grad()
def sample(model: Any, tokenizer: Any, probe: Probe) -> dict[str, float]:
    """Greedy samples of the model as it stands: `samples/no_answer`, `accuracy`, `tokens`, and
    `repetition`, the share of the 4-grams of a sample that it holds already, as means over prompts.

    It draws nothing, so that training goes on as if it had not been.
    """
    was_training, model_caches = model.training, model.config.use_cache
    end = tokenizer.eos_token_id
    width = max(map(len, probe.prompts))
    ids = torch.tensor([[end] * (width - len(p)) + list(p) for p in probe.prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in probe.prompts])
    device = next(model.parameters()).device
    model.eval()
    model.set_attn_implementation("sdpa")
    model.config.use_cache = True
    try:
        written = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=probe.max_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=end,
            pad_token_id=end,
        )[:, width:].tolist()
    finally:
        model.config.use_cache = model_caches
        model.set_attn_implementation(tree_attention.NAME)
        model.train(was_training)
    verdicts, tokens, repetitions = [], [], []
    for i, row in enumerate(written):
        own = row[: row.index(end)] if end in row else row
        text = tokenizer.decode(own, skip_special_tokens=True)
        verdicts.append(probe.task.verify(text, probe.problems[i]).verdict)
        tokens.append(len(own))
        repetitions.append(repetition(own))
    count = len(written)
    return {
        "samples/no_answer": verdicts.count(NO_ANSWER) / count,
        "samples/accuracy": verdicts.count(CORRECT) / count,
        "samples/tokens": sum(tokens) / count,
        "samples/repetition": sum(repetitions) / count,
    }


def repetition(ids: Sequence[int]) -> float:
    """The share of a text's 4-grams that occur in it before; 0 for fewer than four tokens."""
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
