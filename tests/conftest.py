"""What tests of several folders share: the configs that ship, and the embedded model."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from marco.embedded import embedded_model
from marco.search.pattern import Kinds, NodeKind, Pattern

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    """The embedded model's folder; kept in `outputs/models`, so that it is made only once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading GGUF warns about everything under the sun
        return embedded_model(ROOT / "outputs" / "models")


@pytest.fixture(scope="session")
def kinds() -> Kinds:
    """The node kinds of `conf/kinds/paper.yaml`."""
    values = yaml.safe_load((ROOT / "conf" / "kinds" / "paper.yaml").read_text("utf-8"))
    return {name: NodeKind(**kind) for name, kind in values.items()}


@pytest.fixture(scope="session")
def patterns() -> Mapping[str, Pattern]:
    """Every pattern of `conf/pattern`; the mixed one is made of the others."""
    found = {}
    for file in sorted((ROOT / "conf" / "pattern").glob("*.yaml")):
        values = yaml.safe_load(file.read_text("utf-8"))
        if "defaults" not in values:
            found[file.stem] = Pattern(**values)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `pattern_name` runs once per pattern that ships."""
    if "pattern_name" in metafunc.fixturenames:
        files = (ROOT / "conf" / "pattern").glob("*.yaml")
        metafunc.parametrize("pattern_name", sorted(f.stem for f in files if f.stem != "mixed"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The smoke run first: at the end the other workers would wait for it, for minutes."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")


@pytest.fixture
def pattern(pattern_name: str, patterns: Mapping[str, Pattern]) -> Pattern:
    return patterns[pattern_name]
