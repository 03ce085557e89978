"""Blocks of a long row go back to the system, where others are kept; kernels do not pile up."""

import os
import subprocess
import sys

import pytest

from marco.processes import CHILD_ENVIRONMENT
from marco.training.allocator import FEW_KERNELS

HELD_AFTER = """
import sys
from pathlib import Path
from marco.training.allocator import give_back_large_blocks

def held_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "give back":
    give_back_large_blocks()
before = held_mb()
block, small = bytearray(64 * 2**20), bytearray(2**10)
assert held_mb() > before + 60
del block
print(held_mb() - before)
"""

HELD_AFTER_SHAPES = """
import sys
from pathlib import Path
import torch
from marco.training.allocator import keep_few_kernels

def held_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "few":
    keep_few_kernels()
weight = torch.ones(64, 64, dtype=torch.bfloat16)

def shapes(first, last):
    for rows in range(first, last):
        torch.ones(rows, 64, dtype=torch.bfloat16) @ weight

shapes(1, 300)
before = held_mb()
shapes(300, 1000)
print(held_mb() - before)
"""


@pytest.mark.parametrize(("way", "least", "most"), [("give back", -1, 4), ("keep", 60, 70)])
@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_blocks_go_back_to_the_system_where_that_is_asked(
    way: str, least: float, most: float
) -> None:
    command = [sys.executable, "-c", HELD_AFTER, way]
    told = subprocess.run(
        command, env=os.environ | CHILD_ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert least <= float(told.stdout) <= most


@pytest.mark.skipif(sys.platform != "linux", reason="of /proc")
def test_kernels_of_shapes_that_do_not_come_again_are_let_go() -> None:
    grown = {}
    for way in ("few", "all"):
        command = [sys.executable, "-c", HELD_AFTER_SHAPES, way]
        # What a training in this process may have left, as other tests do.
        environment = {name: v for name, v in os.environ.items() if name not in FEW_KERNELS}
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        grown[way] = float(told.stdout)
    if grown["all"] < 20:
        pytest.skip("this machine's products keep no kernels")
    assert grown["few"] < grown["all"] / 2
