import sys
from pathlib import Path

import pytest
import yaml

from marco.reporting.config import LoggerConfig
from marco.reporting.wandb_log import STEP, Run, mode_of

CONF = Path(__file__).parents[2] / "conf" / "logger"
PLANTED = "sesame-open-please"


def logger(name="wandb", **changes):
    return LoggerConfig(**yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


def run_of(config, folder, settings=None):
    return Run(
        config, folder=folder, experiment="table", row="sft", seed=0, settings=settings or {}
    )


class FakeRun:
    """A W&B run that keeps what it is given, and fails where it is told to."""

    def __init__(self, fails=()):
        self.fails, self.lines, self.codes = fails, [], []
        self.summary = self

    def define_metric(self, *_, **__):
        pass

    def log(self, line):
        if "log" in self.fails:
            raise OSError("disk full\nand a long tail")
        self.lines.append(line)

    def update(self, figures):
        self.lines.append(figures)

    def finish(self, exit_code=0):
        self.codes.append(exit_code)
        if "finish" in self.fails:
            raise RuntimeError("no route")


@pytest.fixture
def fake(monkeypatch):
    """Replaces `wandb.init`; gives a function that says how the run behaves, and the calls."""
    calls, state = [], {"run": FakeRun(), "refuse": ()}

    def init(**arguments):
        calls.append(arguments)
        if arguments["mode"] in state["refuse"]:
            raise ConnectionError("no key")
        return state["run"]

    monkeypatch.setattr("wandb.init", init)
    return state, calls


def test_offline_run_is_written_below_the_folder_and_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED_KEY", PLANTED)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["train.py", f"engine.api_key={PLANTED}"])
    settings = {
        "loss": {"alpha": 1.25, "api_key": PLANTED},
        "student": f"https://me:{PLANTED}@host",
        "engine": {"plain": "unlisted-value"},
    }
    config = logger(mode="offline")
    with run_of(config, tmp_path / "out", settings) as run:
        run.log({"loss": 0.5}, step=7)
        run.summary({"arithmetic": {"accuracy": 0.8125}})
    print("after the run", PLANTED)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    (record,) = [path for path in written if path.suffix == ".wandb"]
    assert record.is_relative_to(tmp_path / "out" / "wandb")
    content = record.read_bytes()
    for logged in (b"1.25", b"arithmetic/accuracy", b"0.8125", STEP.encode(), b"sft-seed0"):
        assert logged in content
    for secret in (PLANTED, "unlisted-value"):
        assert not [path for path in written if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("config", [logger("none"), logger(mode="disabled")])
def test_nothing_starts_where_nothing_is_logged(config, fake, tmp_path):
    with run_of(config, tmp_path / "out") as run:
        run.log({"loss": 1.0}, step=1)
        run.summary({"accuracy": 1.0})
    assert fake[1] == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environment", "mode", "found"),
    [
        ({}, "auto", "offline"),
        ({"WANDB_API_KEY": "x"}, "auto", "online"),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "disabled"}, "auto", "disabled"),
        ({"WANDB_API_KEY": "x"}, "offline", "offline"),
        ({"WANDB_MODE": "offline"}, "online", "online"),
    ],
)
def test_mode_comes_from_the_config_and_for_auto_from_the_environment(
    environment, mode, found, monkeypatch
):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mode_of(logger(mode=mode)) == found


def test_a_run_is_named_by_its_row_and_grouped_by_its_experiment(fake, tmp_path):
    with run_of(logger(mode="offline"), tmp_path):
        pass
    (call,) = fake[1]
    assert (call["group"], call["name"], call["mode"]) == ("table", "sft-seed0", "offline")
    assert call["dir"] == tmp_path


def test_metrics_carry_the_trainers_step_and_never_wandbs_own(fake, tmp_path):
    with run_of(logger(mode="offline"), tmp_path) as run:
        run.log({"loss": 0.5}, step=3)
        run.summary({"a": {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "text": "no"}})
    assert fake[0]["run"].lines == [
        {"loss": 0.5, STEP: 3},
        {"a/accuracy": 0.5, "a/accuracy_interval_low": 0.4, "a/accuracy_interval_high": 0.6},
    ]


def test_a_failing_row_closes_its_run_as_failed_and_keeps_its_error(fake, tmp_path):
    with (
        pytest.raises(ValueError, match="the row's own"),
        run_of(logger(mode="offline"), tmp_path),
    ):
        raise ValueError("the row's own")
    assert fake[0]["run"].codes == [1]


def test_online_that_cannot_start_goes_on_offline(fake, tmp_path, capsys):
    fake[0]["refuse"] = ("online",)
    with run_of(logger(mode="online"), tmp_path) as run:
        run.log({"loss": 1.0}, step=0)
    assert [call["mode"] for call in fake[1]] == ["online", "offline"]
    assert "W&B could not start: ConnectionError: no key" in capsys.readouterr().out
    assert fake[0]["run"].lines


def test_no_failure_of_wandb_reaches_the_row(fake, tmp_path, capsys):
    fake[0]["run"] = FakeRun(fails=("log", "finish"))
    with run_of(logger(mode="offline"), tmp_path) as run:
        run.log({"loss": 1.0}, step=0)
        run.log({"loss": 1.0}, step=1)  # told once, then silent
        run.summary({"accuracy": 1.0})
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "W&B could not log: OSError: disk full",
        "W&B could not finish: RuntimeError: no route",
    ]
    fake[0]["refuse"] = ("offline",)
    with run_of(logger(mode="offline"), tmp_path) as run:
        run.log({"loss": 1.0}, step=0)
