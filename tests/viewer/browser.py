"""A real headless Chromium, and the server as a person starts it."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """The browser's program; skips where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
    named = os.environ.get("MARCO_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: install one, or name it in MARCO_CHROMIUM")
    return found


@contextmanager
def browser() -> Iterator:
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox refuses to start for root, as tests in containers run.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


class Server:
    """`python -m marco.viewer` in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.command = [sys.executable, "-m", "marco.viewer", str(folder), *arguments]
        self.port = "0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self.command, "--port", self.port], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if found := re.match(r"http://127\.0\.0\.1:(\d+)/#token=(.+)", line):
                self.port, self.token = found[1], found[2]
                break
        else:
            raise AssertionError(f"it did not start: {lines}")
        self.url = f"http://127.0.0.1:{self.port}/"
        urllib.request.urlopen(self.url).read()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
