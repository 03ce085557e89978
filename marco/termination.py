"""SIGTERM ends a stage with exit code 143, never between an answer and its writing down."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_busy = _told = False


def exit_on_sigterm() -> None:
    """Leave by SystemExit(143), so that every `finally` runs; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, _on_sigterm)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put SIGTERM off to the end of the block, of the outermost where one holds another."""
    global _busy
    before, _busy = _busy, True
    try:
        yield
    finally:
        _busy = before
    if _told and not _busy:
        sys.exit(143)


def is_told() -> bool:
    """Whether a signal waits for the end of an uninterrupted block."""
    return _told


def _on_sigterm(*_: object) -> None:
    global _told
    if not _told and not _busy:
        _told = True
        sys.exit(143)
    _told = True
