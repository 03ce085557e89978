"""Every table in experiments/: its sweep makes the rows that it lists, no more and no fewer."""

from itertools import product

import pytest
from omegaconf import OmegaConf

from marco.config import ROOT
from marco.sweep import composed_config

TABLES = sorted(
    path.stem for path in (ROOT / "experiments").glob("*.yaml") if "table" in OmegaConf.load(path)
)


@pytest.mark.parametrize("size", ["embedded", "paper"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_lists_the_rows_of_its_sweep(name: str, size: str) -> None:
    text = OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")
    params = text.hydra.sweeper.params
    swept = [[f"{key}={value}" for value in str(params[key]).split(",")] for key in params]
    if size == "paper":  # the rows are the same: one of each swept key is enough
        swept = [values[-1:] for values in swept]
    made = {}
    for overrides in product(*swept):
        config = composed_config([f"experiments={name}", f"size={size}", *overrides])
        assert config.table is not None and config.table.name == name
        made[config.row] = config.row_title
    listed = list(OmegaConf.load(ROOT / "experiments" / f"{name}.yaml").table.rows)
    assert set(made) <= set(map(str, listed))
    if size == "embedded":
        assert len(made) == len(listed)
    assert all(title and "${" not in title for title in made.values())
