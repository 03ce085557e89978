"""Every shipped loss and trainer file is valid, and contradictions are refused."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from marco.config import TrainersConfig
from marco.training.config import LossConfig

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("file", sorted((CONF / "loss").glob("*.yaml")), ids=lambda f: f.stem)
def test_loss_files_are_valid(file: Path):
    LossConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", sorted((CONF / "trainer").glob("*.yaml")), ids=lambda f: f.stem)
def test_trainer_files_are_valid(file: Path):
    TrainersConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


DPO = {"name": "dpo", "beta": 0.1, "epsilon": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preference": None, "alpha": 0.0, "mask": "none"}, "no loss is left"),
        ({"preference": None, "alpha": 1.0, "mask": "all"}, "needs pairs"),
        ({"preference": DPO | {"epsilon": 0.1}, "alpha": 0.0, "mask": "none"}, "has no epsilon"),
        ({"preference": DPO | {"name": "cdpo"}, "alpha": 0.0, "mask": "none"}, "needs epsilon"),
        ({"preference": DPO, "alpha": 0.0, "mask": "none", "gamma": 1}, "gamma"),
        ({"preference": DPO, "alpha": -1.0, "mask": "none"}, "alpha"),
    ],
)
def test_contradictions_are_refused(values: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        LossConfig.model_validate(values)
