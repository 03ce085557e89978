"""A process of its own: what it tells reaches its script, and is bounded."""

import os
import sys

from marco import processes


def _loud(text, times):
    for _ in range(times):
        os.write(2, text)


def test_the_last_lines_are_few_and_bounded_and_marks_and_bars_are_none():
    lines = b"one\n\xff two\n  three\n   ^^^^\n 10%\r 90%\nfive\n" + b"x" * 200_000 + b"\n"
    code, last = processes.run_apart(_loud, lines, 1)
    assert code == 0
    assert last == " / ".join(["\ufffd two", "three", "90%", "five", "x" * 500])


def test_a_process_goes_on_where_its_lines_can_be_written_nowhere(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", Closed())
    assert processes.run_apart(_loud, b"y" * 999 + b"\n", 250)[0] == 0
