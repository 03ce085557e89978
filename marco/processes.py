"""Processes of ours: forked where libraries are imported, quiet, and gone with their script."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from typing import Any

from marco.reporting.allowlist import without_credentials

PRELOAD = ["marco.preload"]
LAST_LINES, LONGEST_LINE = 5, 500  # of a process that ended badly; characters
is_forked = False  # whether this process came from the server, with the libraries in it
CHILD_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Blocks are kept for the next training step, where glibc gives them back to the system and each
    # comes again page by page: a tenth of the time on a CPU. In bytes; other libraries ignore it.
    "MALLOC_MMAP_THRESHOLD_": "4294967295",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}


def run_apart(target: Callable[..., None], *args: Any) -> tuple[int, str]:
    """Run a function in a process of its own: its exit code, and the last lines that it told.

    What it writes to its standard error goes on to ours, line by line, without secrets.
    """
    own = context()
    lines, line_end = own.Pipe(duplex=False)
    process = own.Process(target=_with_lines, args=(line_end, target, args))
    last: deque[str] = deque(maxlen=LAST_LINES)
    reader = threading.Thread(target=_pass_on, args=(lines, last), daemon=True)
    try:
        with ended_with_this(process):
            process.start()
            line_end.close()
            reader.start()
            process.join()
    finally:
        if reader.is_alive():
            reader.join(timeout=1)  # what the process has left running may hold it open
    assert process.exitcode is not None  # it was joined
    return process.exitcode, " / ".join(last)


def _with_lines(line_end: Any, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.dup2(line_end.fileno(), 2)
    line_end.close()
    target(*args)


def _pass_on(lines: Any, last: deque[str]) -> None:
    form: Any = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}
    with os.fdopen(os.dup(lines.fileno()), **form) as file:
        for line in map(without_credentials, file):
            with suppress(OSError, ValueError):  # ours is closed; the process must not wait
                sys.stderr.write(line)
                sys.stderr.flush()
            shown = line.strip().rpartition("\r")[2].strip()  # of a bar how far it came
            if shown.strip("^~ "):  # not the marks below a line of code
                last.append(shown[-LONGEST_LINE:])


def context() -> Any:
    """How processes begin: forked from a server that has imported the heavy libraries once.

    They take 10 s for each stage. A row of a sweep is such a process, and forks its stages itself.
    """
    if is_forked:
        return multiprocessing.get_context("fork")
    os.environ.update({k: v for k, v in CHILD_ENVIRONMENT.items() if k not in os.environ})
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # What joblib has made the default of its processes, and the server's do not know.
        multiprocessing.set_start_method("forkserver", force=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    return server


@contextmanager
def ended_with_this(process: Any) -> Iterator[None]:
    """End a process with this one, where that is interrupted or told to end."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if process.is_alive():
            process.terminate()
            process.join()


def ending(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def quiet() -> None:
    """Libraries' progress bars and advice would drown the lines that say what runs."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("WANDB_SILENT", "true")
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries among each other
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def limit_threads(threads: int | None) -> None:
    """CPU threads of torch, and of what follows torch (vLLM in this process); None: all cores."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def end_with_script() -> None:
    """A stage whose script was killed must not write on beside the one that takes its place."""
    script, starter = parent_process(), os.getppid()

    def watch() -> None:
        if script is not None:
            script.join()
        else:  # a rank, of torchrun's
            while os.getppid() == starter:
                time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
