"""What the benchmarks share: parts in processes of their own, memory, printed figures."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def apart(script: str, *arguments: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Run a script in a process of its own; the JSON of its last line."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.strip().splitlines()[-1])


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
