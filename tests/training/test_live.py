"""What a training tells while it goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from marco.reporting.workspace import CURVES
from marco.training.config import TrainerConfig
from marco.training.live import FILE, Following, LiveLog

from .test_fit import history, preference, reference, train
from .test_samples import PROBLEMS, Lengths

Settings = Callable[..., TrainerConfig]


def test_lines_are_told_once_and_half_a_line_waits(tmp_path: Path):
    following, live = Following(tmp_path / "part"), LiveLog(tmp_path / "part")
    assert following.new() == []
    live.begin([])
    live.add(1, {"loss": 0.5})
    with live.path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert following.new() == [(1, {"loss": 0.5})]
    with live.path.open("a") as file:
        file.write('ss": 0.25}\n')
    assert following.new() == [(2, {"loss": 0.25})]
    assert following.new() == []


def test_an_attempt_that_goes_on_tells_its_steps_anew(tmp_path: Path):
    following, live = Following(tmp_path), LiveLog(tmp_path)
    live.begin([{"loss": 1.0}, {"loss": 0.5}])
    assert [step for step, _ in following.new()] == [1, 2]
    live.begin([{"loss": 1.0}])
    assert [step for step, _ in following.new()] == [1]
    # Longer than before, where lines have other lengths: what is half is left out.
    live.begin([{"loss": 0.123456}, {"loss": 0.5}])
    assert following.new() == [(2, {"loss": 0.5})]
    live.end()
    assert following.new() == [] and not (tmp_path / FILE).exists()


def test_every_step_is_told_with_all_that_a_workspace_shows(
    start: Path,
    pairs_folder: Path,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    told = []
    monkeypatch.setattr(LiveLog, "end", lambda live: told.extend(Following(live.path.parent).new()))
    trainer = settings(
        epochs=2,
        samples={"every_steps": 2, "problems": 2, "max_tokens": 4},
        validation={"share": 0.25, "every_steps": 2, "metric": "loss", "patience": 0},
    )
    train(
        start,
        pairs_folder,
        tmp_path / "out",
        trainer=trainer,
        reference=reference(start, pairs_folder, tmp_path / "ref"),
        loss=preference(),
        probe=(Lengths(), PROBLEMS),
    )
    rows = history(tmp_path / "out")
    assert [{"step": step, **figures} for step, figures in told] == rows
    names = {name for row in rows for name in row}
    shown = {name.removeprefix("train/") for metrics in CURVES.values() for name in metrics}
    assert shown <= names
