"""A training run on several devices: one process each, started by torchrun or SLURM."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from marco.training.config import TrainerConfig

PR_SET_PDEATHSIG = 1
IS_RANK = "MARCO_TRAINING_RANK"  # set for the processes that do the work


def is_needed(trainer: TrainerConfig) -> bool:
    """Whether a run must be started once for each device, and this is not one of them."""
    return trainer.world_size > 1 and IS_RANK not in os.environ


def is_first() -> bool:
    """Whether this process speaks for all of them."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
    return IS_RANK not in os.environ or rank == "0"


def launch(folder: Path, trainer: TrainerConfig) -> int:
    """Start the ranks of the training stage in `folder`, on this machine or by `trainer.launch`.

    Returns their exit code. They end with this process, killed ones included: the system ends what
    it started (a launcher of the user's is told, so that it can end what is elsewhere), and a rank
    ends when what started it has ended (`processes.end_with_script`).
    """
    torchrun = f"-m torch.distributed.run --standalone --nproc-per-node={trainer.devices}"
    starter = shlex.split(trainer.launch or f"{shlex.quote(sys.executable)} {torchrun}")
    command = [*starter, "-m", "marco.training", str(folder)]
    share = max(1, (os.cpu_count() or 1) // trainer.devices)
    threads = os.environ.get("OMP_NUM_THREADS", str(share))
    environment = os.environ | {IS_RANK: "1", "OMP_NUM_THREADS": threads}
    at_our_end = signal.SIGKILL if trainer.launch is None else signal.SIGTERM
    set_death_signal = ctypes.CDLL(None).prctl  # of Linux; loaded here, since a fork must not
    process = subprocess.Popen(
        command, env=environment, preexec_fn=lambda: set_death_signal(PR_SET_PDEATHSIG, at_our_end)
    )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun tells its ranks, and waits for them
            process.wait()
