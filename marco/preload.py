"""Imported once by the process that stages are forked from: what takes seconds to import.

On a GPU nothing is: a process forked after CUDA was touched cannot use it.
"""

from contextlib import suppress

from marco.work import quiet

quiet()  # before the libraries read their environment

import torch  # noqa: E402

if torch.version.cuda is None:
    import pytorch_lightning  # noqa: F401

    from marco.engines.vllm import import_vllm
    from marco.training import fit  # noqa: F401

    with suppress(Exception):  # told by the stage that needs it
        import_vllm()
