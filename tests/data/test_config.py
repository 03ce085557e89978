from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from marco.data.config import DataConfig, LengthConfig, PairsConfig

CONF = Path(__file__).parents[2] / "conf"
SECTIONS = {"length": LengthConfig, "pairs": PairsConfig, "data": DataConfig}
FILES = [
    (path, section)
    for name, section in SECTIONS.items()
    for path in CONF.glob(f"{name}/*.yaml")
    if "defaults" not in yaml.safe_load(path.read_text())  # part of one: see tests/test_config.py
]


@pytest.mark.parametrize(("path", "section"), FILES, ids=lambda value: getattr(value, "stem", ""))
def test_every_file_of_the_groups_is_a_valid_section(path: Path, section: type[BaseModel]):
    values = yaml.safe_load(path.read_text())
    assert section(**values).model_dump(mode="json") == values


def test_a_file_is_named_after_its_choice():
    for path in CONF.glob("length/*.yaml"):
        assert yaml.safe_load(path.read_text())["bucket"] == path.stem
    for path in CONF.glob("pairs/*.yaml"):
        assert yaml.safe_load(path.read_text())["choice"] == path.stem


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (LengthConfig, {}),
        (LengthConfig, {"bucket": "short"}),
        (LengthConfig, {"bucket": "any", "buckets": 3}),
        (PairsConfig, {"choice": "random", "per_tree": 0}),
        (PairsConfig, {"choice": "longest", "per_tree": 1}),
        (DataConfig, {"sft_per_tree": 1, "max_tokens": 0, "drop_error_classes": []}),
        (DataConfig, {"sft_per_tree": 1, "max_tokens": 9, "drop_error_classes": ["repetition"]}),
        (DataConfig, {"sft_per_tree": 1}),
    ],
)
def test_bad_values_are_refused(section: type[BaseModel], values: dict):
    with pytest.raises(ValidationError):
        section(**values)
