"""A student's folder: a plain Hugging Face model that anything can load."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from marco.errors import UserError
from marco.training import tree_attention
from marco.training.config import LoraConfig, Precision, SaveDtype
from marco.training.fused import fuse

# What the forward in marco/logps.py was proven equal to separate forwards for.
MODEL_TYPES = ("llama", "qwen2")
WEIGHT_DTYPES: dict[Precision, torch.dtype] = {
    "bf16-master": torch.bfloat16,
    "bf16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "32-true": torch.float32,
    "64-true": torch.float64,
}


def load_student(folder: Path, *, precision: Precision) -> tuple[Any, Any]:
    """The model, ready to train, and its tokenizer; raises `UserError` for an unusable folder."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: is not a model folder: config.json is missing")
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in MODEL_TYPES:
        raise UserError(
            f"{folder}: models of type {kind!r} cannot be trained yet; expected one of "
            f"{', '.join(MODEL_TYPES)}"
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=WEIGHT_DTYPES[precision], attn_implementation=tree_attention.NAME
    )
    fuse(model)
    return model.train(), AutoTokenizer.from_pretrained(folder)


def add_adapter(model: Any, settings: LoraConfig) -> Any:
    """The model with a low-rank adapter; only that is trained. At the start it changes nothing."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = PeftConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            # Of what is refused below.
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            model = get_peft_model(model, config).get_base_model()
    except ValueError as error:
        raise UserError(f"trainer.lora: {str(error).splitlines()[0]}") from error
    for layer, name in ((model.lm_head, "head"), (model.model.embed_tokens, "embedding")):
        if isinstance(layer, BaseTunerLayer):
            raise UserError(
                f"trainer.lora.targets: an adapter beside the {name} is not supported, since the "
                "loss reads that weight by itself: name layers of attention and MLP, or all-linear"
            )
    return model


@torch.no_grad()
def merge_adapter(model: Any) -> None:
    """Add the adapter's weights to those that it stands beside, in fp32, and take it out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if model.dtype != torch.float64:
        model.float()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())


def save_student(model: Any, tokenizer: Any, out: Path, *, dtype: SaveDtype) -> None:
    """Write weights, and the tokenizer with its chat template."""
    model.to(getattr(torch, dtype)).save_pretrained(out)
    tokenizer.save_pretrained(out)
