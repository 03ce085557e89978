"""What this machine's processor can do."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86's two kinds of instructions, and ARM's


def multiplies_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether every core has instructions for products of bfloat16; False where that is not told.

    Without them such products take several times as long as float32's (docs/benchmarks.md).
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    parts = (line.partition(":") for line in lines)
    cores = [value.split() for name, _, value in parts if name.strip() in ("flags", "Features")]
    return bool(cores) and all(BF16_FLAGS.intersection(flags) for flags in cores)
