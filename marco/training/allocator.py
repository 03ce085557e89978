"""What a training on a CPU leaves in memory: blocks that it has freed, and kernels.

A stage keeps all freed blocks (`CHILD_ENVIRONMENT` in marco/processes.py): the next step asks for
the same sizes, and their pages are there. The blocks of one long row are of many sizes, each a
little larger than the hole that the last has left, and holes then outweigh what is in use.
"""

import ctypes
import os

# Tokens of a packed row beyond which holes cost more memory than pages cost time.
LONG_ROW = 8192
LARGE = 2**20  # bytes
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
# Kernels of oneDNN, which makes one for each shape of a product, and keeps 1,024 of half a MB. A
# step has about 70 shapes, and few of them come again, since no two rows are of one length.
FEW_KERNELS = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    "LRU_CACHE_CAPACITY": "256",  # of torch's own layer above it
}


def give_back_large_blocks() -> None:
    """Have blocks of `LARGE` bytes or more come from the system, and go back to it when freed.

    Peak memory at 16,384 tokens falls by a third, and a step takes a quarter longer
    (docs/benchmarks.md). Another C library than glibc is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)


def keep_few_kernels() -> None:
    """Set `FEW_KERNELS`, which take effect before a process's first product of matrices."""
    for name, value in FEW_KERNELS.items():
        os.environ.setdefault(name, value)
