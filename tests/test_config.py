"""Every config composes and checks; every problem is told at once, with file, key and remedy."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from marco.config import ROOT, Config, check
from marco.engines.registry import engine_of
from marco.errors import UserError

CONF = ROOT / "conf"


def composed(*overrides, name="train"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def checked(*overrides, name="train") -> Config:
    return check(*composed(*overrides, name=name))


def test_what_does_not_fit_in_an_evaluation_is_told():
    for override, told in {
        "tasks=[arithmetic,arithmetic]": "a task is named twice",
        "+decoding.search.max_rollouts=9": "max_rollouts is set by `tries`",
        "+decoding.search.node_tokenz=5": "decoding.search.node_tokenz",
        "decoding.search.max_tokens=64": "node_tokens is above max_tokens",
        "decoding.temperature=0": "temperature 0",
    }.items():
        with pytest.raises(UserError, match=told):
            checked("decoding=mcts", override, name="evaluate")


def options(group):
    # What begins with an underscore is shared by the options of its group.
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


@pytest.mark.parametrize("name", ["train", "generate", "evaluate"])
def test_every_script_has_a_whole_config(name):
    assert checked(name=name).seed == 0


SINGLE = {"loss", "length", "student", "experiments", "at_size"}  # composed in their own way below
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in SINGLE)
CHOICES = [
    *(f"{group}={option}" for group in GROUPS for option in options(group)),
    *(f"student={option}" for option in options("student") if option != "folder"),
    *(f"length@length.{use}={option}" for use in ("sft", "dpo") for option in options("length")),
]


@pytest.mark.parametrize("override", CHOICES)
def test_every_choice_of_every_group_composes(override):
    checked(override)


@pytest.mark.parametrize("name", ["lr_sft", "lr_preference"])  # the others: test_tables.py
def test_learning_rates_are_chosen_on_the_validation_split(name):
    config = checked(f"experiments={name}")
    assert config.split == "validation" and config.table is None


def test_the_rows_of_the_table_are_the_rows_that_run():
    file = OmegaConf.load(ROOT / "experiments" / "step_by_step.yaml")
    assert file.hydra.sweeper.params.recipe.split(",") == list(file.table.rows)


def test_the_size_of_the_paper_overrides_the_groups_it_names():
    config = checked("size=paper")
    assert config.task.name == "gsm8k" and config.search.node_tokens == 512
    assert config.tasks == ["gsm8k", "math", "aime", "multi_if"]
    assert checked("size=paper", "tasks=[gsm8k]").tasks == ["gsm8k"]
    for decoding in ("sample", "mcts"):
        config = checked("experiments=test_at_n", "size=paper", f"decoding={decoding}")
        assert "multi_if" not in config.tasks
        assert (config.decoding.tries, config.decoding.test_at) == (32, [1, 8, 32])
    assert checked("experiments=lr_sft", "size=paper").tasks == ["gsm8k"]
    assert checked("size=paper", "student=llama3_2_1b").student.name == "llama3_2_1b"


def test_budgets_of_the_paper_are_of_what_they_name_alone():
    released = checked("search=released").search
    assert checked("size=paper", "search=released").search == released
    assert released.max_rollouts == 128 and released.max_tokens == 200_000
    distinct, plain = (checked("size=paper", f"search={name}") for name in ("distinct", "plain"))
    changed = {"name": "plain", "count": "plain"}
    assert plain.search == distinct.search.model_copy(update=changed)
    assert (distinct.search.max_rollouts, distinct.data.max_tokens) == (64, 4096)
    assert checked("size=paper", "search.max_rollouts=3").search.max_rollouts == 3
    learnt = checked("experiments=sft_data", "size=paper", "recipe=sft_sky_t1")
    assert learnt.data.max_tokens == 16_384 < learnt.trainer.of("sft").max_tokens


def test_knobs_of_a_nested_loss_can_be_swept():
    config = checked("recipe=joint", "loss.preference.epsilon=0.2", "loss.alpha=0.5")
    assert (config.loss.preference.epsilon, config.loss.alpha) == (0.2, 0.5)


def test_the_paper_pairing_lets_llama_reflect_and_double_check():
    config = checked("models=qwen_llama")
    llama = {kind for kind, name in config.models.roles.items() if name == "llama"}
    assert llama == {"reflection", "double_check"}


def test_mixed_holds_the_four_patterns():
    assert [p.name for p in checked("pattern=mixed").pattern.options.values()] == [
        "a",
        "b",
        "c",
        "d",
    ]


def test_masking_rows_differ_in_their_scope_only():
    joint, wide, narrow = (
        checked(f"recipe={name}").loss
        for name in ("joint", "masked_joint", "masked_joint_preference")
    )
    assert (joint.mask, wide.mask, narrow.mask) == ("none", "all", "preference")
    assert joint.preference == wide.preference == narrow.preference


def problems(cfg, choices) -> str:
    with pytest.raises(UserError) as caught:
        check(cfg, choices)
    return str(caught.value)


def test_all_problems_are_told_at_once_with_file_key_and_nearest_name():
    cfg, choices = composed("recipe=joint")
    with open_dict(cfg):
        cfg.loss.preference.epsilom = 0.1
        cfg.search.max_rollouts = "many"
        cfg.seed = -1
        del cfg.student.name
        cfg.models.roles.thinking = "man"  # what does not fit between sections is told as well
        paper = {"paper": "stepp", "paper_column": "gsm8k", "trees": False}
        paper["figures"] = []
        cfg.table = {"name": "t", "row": "sftt", "rows": {"sftt": None}} | paper
    text = problems(cfg, choices)
    assert "models.roles.thinking: no checkpoint `man`; did you mean `main`?" in text
    assert "table.rows: there is no conf/recipe/sftt.yaml; did you mean `sft`?" in text
    assert "unknown paper table 'stepp'" in text
    assert (
        "conf/loss/joint.yaml: loss.preference: conservative has no epsilom: it takes beta, epsilon"
        in text
    )
    assert "conf/search/distinct.yaml: search.max_rollouts: " in text and "'many'" in text
    assert "seed: " in text and "got -1" in text
    assert "conf/student/smollm2_135m.yaml: student.name: missing" in text
    assert len(text.splitlines()) == 8


def test_a_pattern_with_an_unknown_kind_names_the_nearest():
    cfg, choices = composed("pattern=a")
    with open_dict(cfg):
        cfg.pattern.transitions.thinking = {"anwser": 1, "answer": 1}
        cfg.pattern.transitions.anwser = {"answer": 1}
    assert "unknown kind `anwser`; did you mean `answer`?" in problems(cfg, choices)


def test_a_pattern_that_is_a_dead_end_is_refused():
    cfg, choices = composed("pattern=a")
    with open_dict(cfg):
        cfg.pattern.transitions.reflection = {}
    assert "dead end: no `answer` can follow `reflection`" in problems(cfg, choices)


def test_a_role_without_a_checkpoint_is_refused():
    cfg, choices = composed()
    cfg.models.roles.thinking = "mian"
    assert "models.roles.thinking: no checkpoint `mian`; did you mean `main`?" in problems(
        cfg, choices
    )


def test_a_preference_recipe_without_a_preference_loss_is_refused():
    assert "loss.preference is null" in problems(*composed("recipe=joint", "loss=sft"))


def test_a_missing_value_is_told():
    assert "student.model" in problems(*composed("student=folder"))


def test_outputs_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MARCO_OUTPUTS", raising=False)
    assert checked().outputs == Path(tmp_path / "outputs")


@pytest.mark.parametrize("engine", options("engine"))
@pytest.mark.parametrize("size", options("size"))
def test_every_engine_goes_with_every_size(engine: str, size: str) -> None:
    assert checked(f"size={size}", f"engine={engine}").engine.name in engine


def test_each_checkpoint_may_have_an_engine_of_its_own() -> None:
    config = checked(
        "size=paper",
        "+engine@models.checkpoints.llama.engine=openai",
        "models.checkpoints.llama.engine.urls=[http://a:8000/v1]",
    )
    own = config.models.checkpoints["llama"].engine
    assert engine_of(config.engine.model_dump(), own)["name"] == "openai"
    assert engine_of(config.engine.model_dump(), {})["tensor_parallel"] == 8
