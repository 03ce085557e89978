from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from marco.reporting.config import LoggerConfig

CONF = Path(__file__).parents[2] / "conf" / "logger"


def values(name, **changes):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes


@pytest.mark.parametrize("name", ["wandb", "none"])
def test_every_logger_file_is_valid_and_has_the_same_keys(name):
    assert LoggerConfig(**values(name)).name == name
    assert set(values(name)) == set(LoggerConfig.model_fields)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("none", {"mode": "online"}, "use logger=wandb"),
        ("wandb", {"project": None}, "needs a project"),
        ("wandb", {"mode": "of"}, "'auto', 'offline', 'online' or 'disabled'"),
        ("wandb", {"projekt": "x"}, "projekt"),
        ("wandb", {"finish_s": -1}, "greater than or equal to 0"),
    ],
)
def test_contradictions_and_typos_are_refused(name, changes, told):
    with pytest.raises(ValidationError, match=told):
        LoggerConfig(**values(name, **changes))
