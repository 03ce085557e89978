"""What the benchmarks share: memory of a process, and figures as they are printed."""

from pathlib import Path
from typing import Any


def peak_mb() -> float:
    """The most memory that this process has held; `ru_maxrss` would count its parent's, too."""
    return status_mb("self", "VmHWM")


def status_mb(process: int | str, name: str) -> float:
    """`VmRSS` or `VmHWM` of a process; 0 where it is ending and has none."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def rounded(value: Any) -> Any:
    """With four digits that count."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
