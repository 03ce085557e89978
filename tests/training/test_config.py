"""Every shipped loss and trainer file is valid, and contradictions are refused."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from pydantic import ValidationError

from marco.config import TrainersConfig
from marco.training.config import LossConfig

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("file", sorted((CONF / "loss").glob("*.yaml")), ids=lambda f: f.stem)
def test_loss_files_are_valid(file: Path):
    LossConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", sorted((CONF / "loss").glob("*.yaml")), ids=lambda f: f.stem)
def test_losses_survive_the_config_of_a_run(file: Path):
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    loss = LossConfig.model_validate(values)
    dumped = loss.model_dump(mode="json")
    assert dumped == values
    assert LossConfig.model_validate(dumped) == loss
    if loss.preference is not None:
        assert loss.preference.knobs == {
            k: v for k, v in values["preference"].items() if k != "name"
        }


@pytest.mark.parametrize("file", sorted((CONF / "trainer").glob("*.yaml")), ids=lambda f: f.stem)
def test_trainer_files_are_valid(file: Path):
    TrainersConfig.model_validate(OmegaConf.to_container(OmegaConf.load(file), resolve=True))


DPO = {"name": "dpo", "beta": 0.1}
LOSS = {"preference": DPO, "alpha": 0.0, "mask": "none", "weights": {}}
SFT = LOSS | {"preference": None, "alpha": 1.0}


def test_knobs_are_numbers_of_one_type_however_they_are_written():
    # Else 1 and 1.0 would be two runs.
    whole = LossConfig.model_validate(LOSS | {"preference": DPO | {"beta": 1}})
    assert repr(whole.model_dump()["preference"]) == repr({"name": "dpo", "beta": 1.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (SFT | {"alpha": 0.0}, "no loss is left"),
        (SFT | {"mask": "all"}, "needs pairs"),
        (SFT | {"mask": "sft"}, "needs pairs"),
        (SFT | {"weights": {"thinking": 0.5}}, "weights are of the preference term"),
        (
            LOSS | {"weights": {"thinking": -0.5}},
            r"weights\.thinking\n.*greater than or equal to 0",
        ),
        (LOSS | {"mask": "rejected"}, "mask"),
        (LOSS | {"gamma": 1}, "gamma"),
        (LOSS | {"alpha": -1.0}, "alpha"),
        (LOSS | {"preference": {"beta": 0.1}}, r"preference\.name\n.*required"),
        (
            LOSS | {"preference": {"name": "cdpo", "beta": 0.1}},
            "no loss is named 'cdpo': there are",
        ),
        (LOSS | {"preference": {"name": ["dpo"]}}, "no loss is named"),
        (LOSS | {"preference": DPO | {"epsilon": 0.1}}, "dpo has no epsilon: it takes beta"),
        (LOSS | {"preference": DPO | {"epsilon": None}}, "dpo has no epsilon: it takes beta"),
        (
            LOSS | {"preference": {"name": "dpop", "beta": 0.1, "lambda": 5}},
            "dpop has no lambda: it takes beta, lambda_",
        ),
        (LOSS | {"preference": {"name": "dpo"}}, r"preference\.beta\n.*required"),
        (LOSS | {"preference": DPO | {"beta": 0.0}}, r"preference\.beta\n.*greater than 0"),
        (LOSS | {"preference": DPO | {"beta": float("inf")}}, r"preference\.beta\n.*finite"),
        (
            LOSS | {"preference": DPO | {"name": "conservative", "epsilon": 0.5}},
            r"preference\.epsilon\n.*less than 0\.5",
        ),
    ],
)
def test_contradictions_are_refused(values: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        LossConfig.model_validate(values)
