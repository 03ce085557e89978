"""A model folder, datasets and settings that are small enough to train for real in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from marco.training.config import TrainerConfig

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and two control tokens."""
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


def save_tiny(folder: Path, config: Any, model: Any) -> Path:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 258,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "pad_token_id": 257,
    }
    model(config(**sizes)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("start"), LlamaConfig, LlamaForCausalLM)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("qwen"), Qwen2Config, Qwen2ForCausalLM)


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "dataset"))
    return folder


def prompt(problem: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{problem} + 1?"}]


@pytest.fixture
def sft_folder(tmp_path: Path) -> Path:
    rows = [
        {"id": f"p{i}", "prompt": prompt(i), "completion": assistant(f"<a>\n{i + 1}{end}\n</a>\n")}
        for i in range(4)
        for end in ("", " yes")
    ]
    return write_rows(tmp_path / "sft", rows)


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"p{i}",
            "prompt": prompt(i),
            "chosen": assistant(f"<t>\nadd\n</t>\n<a>\n{i + 1}\n</a>\n"),
            "rejected": assistant(f"<t>\nadd\n</t>\n<a>\n{i + wrong}{' so' * wrong}\n</a>\n"),
        }
        for i in range(4)
        for wrong in (2, 3)
    ]
    return write_rows(tmp_path / "pairs", rows)


@pytest.fixture
def settings() -> Callable[..., TrainerConfig]:
    def make(**changes: Any) -> TrainerConfig:
        values = {
            "epochs": 2,
            "batch_size": 3,
            "learning_rate": 1e-2,
            "warmup_ratio": 0.2,
            "schedule": "linear",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "precision": "64-true",
            "micro_batch_tokens": 100_000,
            "max_tokens": 200,
            "gradient_checkpointing": False,
            "lora": None,
            "validation": {"share": 0.0, "every_steps": 1, "metric": "loss", "patience": 0},
            "samples": {"every_steps": 0, "problems": 1, "max_tokens": 4},
            "accelerator": "cpu",
            "strategy": "ddp",
            "devices": 1,
            "nodes": 1,
            "launch": None,
            "checkpoint_every_s": 1e9,
            "save_dtype": "float32",
        }
        return TrainerConfig(**values | changes)

    return make
