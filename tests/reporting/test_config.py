"""What may be said of logging: the files of `conf/logger`, and what is refused."""

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from marco.config import ROOT
from marco.errors import UserError
from marco.reporting.config import AnyLogger, LoggedConfig, LoggerConfig, NoLoggerConfig

from ..test_config import checked

CONF = ROOT / "conf" / "logger"
LOGGERS: TypeAdapter[NoLoggerConfig | AnyLogger] = TypeAdapter(LoggerConfig)


def values(file, **changes):
    """The keys of a file, with those that all loggers share."""
    own = OmegaConf.to_container(OmegaConf.load(CONF / f"{file}.yaml"))
    shared = OmegaConf.to_container(OmegaConf.load(CONF / "_shared.yaml"))
    if "defaults" not in own:
        return own | changes
    del own["defaults"]
    return shared | own | changes


@pytest.mark.parametrize("name", ["csv", "mlflow", "none", "tensorboard", "wandb"])
def test_every_logger_file_is_valid_and_names_all_keys(name):
    config = LOGGERS.validate_python(values(name))
    assert config.name == name and set(values(name)) == set(type(config).model_fields)
    assert isinstance(config, LoggedConfig) is (name != "none")


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("none", {"mode": "online"}, "mode"),
        ("wandb", {"project": None}, "project"),
        ("wandb", {"mode": "of"}, "'auto', 'offline', 'online' or 'disabled'"),
        ("wandb", {"projekt": "x"}, "projekt"),
        ("wandb", {"artifacts": "all"}, "'none', 'manifests' or 'files'"),
        ("csv", {"finish_s": 0}, "greater than 0"),
        ("csv", {"name": "comet"}, "'csv', 'tensorboard', 'mlflow', 'wandb'"),
    ],
)
def test_contradictions_and_typos_are_refused(name, changes, told):
    with pytest.raises(ValidationError, match=told):
        LOGGERS.validate_python(values(name, **changes))


def test_a_key_of_another_logger_is_refused_on_the_command_line():
    with pytest.raises(
        UserError, match="wandb.yaml: logger.projekt: unknown key; did you mean `project`"
    ):
        checked("logger=wandb", "+logger.projekt=x")
