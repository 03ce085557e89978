"""Imported once by the process that stages are forked from: what takes seconds to import.

On a GPU nothing is: a process forked after CUDA was touched cannot use it.
"""

from contextlib import suppress
from importlib import import_module

from marco.processes import quiet


def preload() -> None:
    quiet()  # before the libraries read their environment
    import torch

    if torch.version.cuda is not None:
        return
    import_module("marco.training.fit")
    from marco.engines.vllm import import_vllm

    with suppress(Exception):  # told by the stage that needs it
        import_vllm()


preload()
