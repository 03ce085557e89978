"""Named points where a test ends the process, as a power cut would: between two writes to disk.

`MARCO_FAILPOINT=<name>:<n>` ends a stage's process with SIGKILL when it crosses `<name>` for the
n-th time.
"""

import os
import signal

FAILPOINTS = (
    "journal.write.before",
    "journal.write.after",
    "journal.commit.before",
    "journal.commit.after",
    "checkpoint.write.before",
    "checkpoint.write.after",
    "checkpoint.rename.before",
    "checkpoint.rename.after",
    "stage.rename.before",
    "stage.rename.after",
)


class _Trigger:
    def __init__(self, told: str) -> None:
        self.name, _, count = told.partition(":")
        self.left = int(count or 1)
        if self.name and self.name not in FAILPOINTS:
            raise ValueError(f"MARCO_FAILPOINT: no point {self.name!r}; there are {FAILPOINTS}")


_trigger = _Trigger(os.environ.get("MARCO_FAILPOINT", ""))


def cross(name: str) -> None:
    """End the process here, if it was told to."""
    if name != _trigger.name:
        return
    _trigger.left -= 1
    if _trigger.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
