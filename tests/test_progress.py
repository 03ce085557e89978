import os
import pty
import re
import subprocess
import sys

import pytest

from marco.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.99, "0:09"),
        (60, "1:00"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (90_061, "25:01:01"),
    ],
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_line_tells_done_total_figures_and_the_time_left(capsys):
    progress = Progress("SFT", 8, "steps", every_s=0)
    progress.update(2, loss=1.5, tokens_per_s="420")
    line = capsys.readouterr().out
    assert re.fullmatch(r"  SFT: 2/8 steps · loss 1\.5 · tokens per s 420 · ETA \d+:\d\d\n", line)


def test_the_time_left_follows_the_rate_so_far(capsys):
    progress = Progress("SFT", 8, "steps", every_s=0)
    progress.started -= 100  # 2 of 8 in 100 s leave 6 for 300 s
    progress.update(2)
    assert re.search(r"ETA 5:0\d\n", capsys.readouterr().out)


def test_the_time_left_follows_the_share_of_the_work_where_it_is_told(capsys):
    progress = Progress("trees", 8, "problems", every_s=0)
    progress.started -= 100  # half of the work in 100 s, though one item of 8 is finished
    progress.update(1, share=0.5)
    assert re.search(r"trees: 1/8 problems · ETA 1:4\d\n", capsys.readouterr().out)


@pytest.mark.parametrize("done", [0, 8])
def test_no_time_left_is_told_where_no_rate_is_known_or_nothing_is_left(capsys, done: int):
    progress = Progress("SFT", 8, "steps", every_s=0)
    progress.started -= 65
    progress.update(done)
    assert re.fullmatch(rf"  SFT: {done}/8 steps · took 1:0\d\n", capsys.readouterr().out)


def test_a_total_of_zero_is_no_division(capsys):
    progress = Progress("trees", 0, "trees", every_s=0)
    progress.update(0)
    progress.close()
    assert re.fullmatch(r"  trees: 0/0 trees · took 0:\d\d\n", capsys.readouterr().out)  # once


def test_updates_between_two_lines_are_silent_and_close_tells_the_last(capsys):
    progress = Progress("SFT", 8, "steps", every_s=1e9)
    for done in range(1, 9):
        progress.update(done, loss=done / 10)
    assert capsys.readouterr().out == ""
    progress.close()
    line = capsys.readouterr().out
    assert re.fullmatch(r"  SFT: 8/8 steps · loss 0\.8 · took 0:\d\d\n", line)


def test_a_terminal_shows_one_bar_and_its_figures_in_place():
    script = """
import time
from marco.driver.report import Report
from marco.driver.worker import Counts, Found
report = Report("trees", 200, {0: ("solved", 30)}, wanted="solved")
report.begin()
for done in range(1, 100):
    status = "solved" if done % 2 else "budget"
    report.on_found(Found(place=done, line="", status=status, tokens=20))
    report.on_counts({0: Counts(nodes=9 * done, tokens=20 * done, running=8, fullness=0.97)})
    time.sleep(0.01)
report.close()
print("afterwards")
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    subprocess.run(
        [sys.executable, "-c", script], stdout=theirs, env=environment, check=True, timeout=60
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[1A" in shown  # drawn anew over itself
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back
    last = re.sub(r"\x1b\[[0-9;]*m", "", shown[shown.rindex("trees") :])
    for part in ("100/200 problems", "running 8", "solved 51 (51%)", "engine full 97%", "ETA 0:0"):
        assert part in last
    assert last.rstrip().endswith("afterwards") and last.count("problems") == 1
