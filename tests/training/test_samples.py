"""Samples of a student in training: what is counted, and that training goes on as if unseen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marco.tasks.problem import Problem
from marco.tasks.verdict import CORRECT, NO_ANSWER, Verdict
from marco.training.config import SamplesConfig, TrainerConfig
from marco.training.samples import Probe, repetition, sample
from marco.training.student import load_student

from .test_fit import history, train, weights

Settings = Callable[..., TrainerConfig]
PROBLEMS = [Problem(id=str(i), problem=f"{i} + 1?", answer=str(i + 1)) for i in range(5)]


class Lengths:
    """A task in which a text of an even length is right, and any other no answer."""

    name = "lengths"

    def verify(self, response: str, problem: Problem) -> Verdict:
        assert problem in PROBLEMS
        return Verdict(CORRECT if len(response) % 2 == 0 else NO_ANSWER, None, "length")


def test_repetition_by_hand():
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2, 3, 4, 5]) == 0
    # 1111 five times.
    assert repetition([1] * 8) == pytest.approx(4 / 5)


def test_samples_are_greedy_judged_and_counted(start: Path):
    model, tokenizer = load_student(start, precision="64-true")
    settings = SamplesConfig(every_steps=1, problems=3, max_tokens=6)
    probe = Probe.of(Lengths(), PROBLEMS[:3], tokenizer, settings)
    before = torch.get_rng_state()
    first, again = (sample(model, tokenizer, probe) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training and model.config._attn_implementation == "marco_tree"
    # By hand: token after token, without cache or padding.
    model.set_attn_implementation("sdpa")
    texts, counts = [], []
    for prompt in probe.prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and ids[-1:] != [tokenizer.eos_token_id]:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        own = [i for i in ids[len(prompt) :] if i != tokenizer.eos_token_id]
        texts.append(tokenizer.decode(own, skip_special_tokens=True))
        counts.append(len(own))
    right = sum(len(text) % 2 == 0 for text in texts) / 3
    assert first["samples/accuracy"] == pytest.approx(right)
    assert first["samples/no_answer"] == pytest.approx(1 - right)
    assert first["samples/tokens"] == pytest.approx(sum(counts) / 3)


def test_training_is_the_same_with_samples(
    start: Path, sft_folder: Path, tmp_path: Path, settings: Settings
):
    samples = {"every_steps": 2, "problems": 2, "max_tokens": 4}
    probe: Any = (Lengths(), PROBLEMS)
    train(start, sft_folder, tmp_path / "with", trainer=settings(samples=samples), probe=probe)
    train(start, sft_folder, tmp_path / "without", trainer=settings(), probe=probe)
    ours, theirs = (weights(tmp_path / name) for name in ("with", "without"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    sampled = ["samples/tokens" in row for row in history(tmp_path / "with")]
    assert sampled == [False, True] * 3
