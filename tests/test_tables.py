"""Every table in experiments/: its sweep makes the rows that it lists, no more and no fewer."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from marco.cli import row_of_table
from marco.config import ROOT, check
from marco.losses import PREFERENCE_LOSSES
from marco.sweep import folder_name

CONF = ROOT / "conf"
TABLES = sorted(
    path.stem for path in (ROOT / "experiments").glob("*.yaml") if "table" in OmegaConf.load(path)
)


def swept(name: str, size: str) -> dict[str, list[str]]:
    """The values of each key that a table sweeps."""
    found: Any = OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")
    if (at_size := CONF / "at_size" / f"{name}_{size}.yaml").is_file():
        found = OmegaConf.merge(found, OmegaConf.load(at_size))
    return {key: str(values).split(",") for key, values in found.hydra.sweeper.params.items()}


def sections(file: Path) -> Any:
    """What an option of a group says itself, by the section that it says it of."""
    own = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(own, dict)
    own.pop("defaults", None)
    return own if "@package _global_" in file.read_text() else {file.parent.name: own}


def row_of(cfg: DictConfig, chosen: dict[str, str]) -> str:
    """The row that a composed config makes with other options and values.

    Only its name is asked for: sections are put in place without another composition, which is what
    takes time.
    """
    OmegaConf.set_readonly(cfg.hydra, False)
    with open_dict(cfg):
        for key, value in chosen.items():
            if (file := CONF / key / f"{value}.yaml").is_file():
                cfg.merge_with(sections(file))
                cfg.hydra.runtime.choices[key] = value
            else:
                OmegaConf.update(cfg, key, float(value) if "." in value else value)
    HydraConfig.instance().set_config(cfg)
    return cfg.table.row


@pytest.mark.parametrize("size", ["embedded", "paper"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_lists_the_rows_of_its_sweep(name: str, size: str) -> None:
    keys = swept(name, size)
    last = [f"{key}={values[-1]}" for key, values in keys.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"experiments={name}", f"size={size}", *last]
        cfg = compose("train", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    choices = dict(cfg.hydra.runtime.choices)
    config = check(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), choices)
    assert config.table is not None and config.table.name == name and config.split == "test"
    assert all(title and "${" not in title for title in config.table.titles.values())
    made = [row_of(cfg.copy(), dict(zip(keys, v, strict=True))) for v in product(*keys.values())]
    assert config.row == made[-1]
    assert sorted(made) == sorted(config.table.rows)


@pytest.mark.parametrize("size", ["embedded", "paper"])
@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_share_a_folder_and_those_of_another_recipe_have_their_own(
    name: str, size: str
) -> None:
    keys = swept(name, size)
    file = OmegaConf.load(ROOT / "experiments" / f"{name}.yaml")
    assert isinstance(file, DictConfig)
    row = row_of_table(file)
    params = {key: ",".join(values) for key, values in keys.items()}

    def called(*overrides: str) -> str:
        return folder_name(name, [f"experiments={name}", *overrides], row=row, params=params)

    made = product(*([f"{key}={value}" for value in values] for key, values in keys.items()))
    assert {called(*chosen) for chosen in made} == {called()}
    fixed = [key for key, values in keys.items() if len(values) == 1]
    assert all(called(f"{key}=other") != called() for key in [*fixed, "task.train"])


def test_a_row_is_named_by_options_and_values() -> None:
    row = "${recipe.name}_${hydra:runtime.choices.loss}_${loss.preference.beta}"

    def called(*overrides: str) -> str:
        return folder_name("t", overrides, row=row, params={"length": "512"})

    own = ("recipe=sft", "loss=dpo", "loss.preference.beta=0.1", "length=512", "seed=3", "retry=x")
    assert called(*own) == called()
    others = ("recipe.title=x", "loss.preference=dpo", "length=1k", "task.train=4", "~tasks")
    assert len({called(), *map(called, others)}) == 1 + len(others)


def test_what_an_experiment_sweeps_is_no_part_of_the_folder_however_rows_are_named() -> None:
    params = {"pairs": "a,b", "loss": "dpo,ipo", "recipe": "joint", "tasks": "['gsm8k', 'math']"}

    def called(*overrides: str, is_sweep: bool = True) -> str:
        told = {"row": "${pairs.choice}_${loss.preference.name}", "params": params}
        return folder_name("t", overrides, **told, is_sweep=is_sweep)

    # As Hydra hands them to a job.
    given = ("recipe=joint", "tasks=['gsm8k','math']")
    rows = {called(f"pairs={p}", f"loss={x}", *given) for p in "ab" for x in ("dpo", "ipo")}
    assert rows == {called()}
    assert called("pairs=a", *given, is_sweep=False) == called()
    # One that is run by itself is composed without them.
    alone = called("pairs=a", is_sweep=False)
    assert alone != called() and called("pairs=b", "loss=dpo", is_sweep=False) == alone
    assert called("recipe=other", is_sweep=False) not in (alone, called("recipe=other"), called())


def test_the_table_of_losses_has_every_loss_of_the_registry() -> None:
    losses = swept("losses", "embedded")["loss"]
    used = {OmegaConf.load(CONF / "loss" / f"{loss}.yaml").preference.name for loss in losses}
    assert used == set(PREFERENCE_LOSSES)
