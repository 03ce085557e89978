"""Cards tell what a student and a dataset are made of, and nothing of this machine."""

import json
import re

import pytest

from marco.cards import card as cards
from marco.cards.__main__ import main
from marco.errors import UserError
from marco.manifest import CARDED, read_manifest

from . import prepared_stages
from .conftest import PASSWORD, TOKEN, header, prepare


def test_a_student_tells_its_key_config_lineage_versions_and_how_to_load_it(make):
    folder = make()
    manifest = read_manifest(folder)
    card = cards.card(folder)
    text = str(card)
    assert header(card) == {
        "base_model": "meta-llama/Llama-3.2-1B-Instruct",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["marco", "reasoning", "arXiv:2503.01461"],
    }
    assert f'AutoModelForCausalLM.from_pretrained("{folder.name}")' in text
    assert "7 steps in 1:15, last loss 0.2500" in text
    assert "mask: all" in text and "learning_rate: 1.0e-06" in text
    assert f"torch {manifest['versions']['torch']}" in text
    made_of = text.split("## Made of\n\n")[1].split("\n\n## Configs")[0].splitlines()
    assert made_of[0] == f"- `{folder.name}`, key `{manifest['key']}`"
    told = [re.match(r"( *)- (\w+)?", line).groups() for line in made_of]
    assert [(len(indent) // 2, use) for indent, use in told] == [
        (0, None),
        (1, "dataset"),
        (2, "trees"),
        (3, "train_file"),
        (1, "start"),
        (2, "dataset"),
        (3, "trees"),
        (1, "reference"),
        (2, "dataset"),
        (2, "start"),
    ]
    assert [line.endswith(", as above") for line in made_of] == [
        *[False] * 6,
        True,
        False,
        True,
        True,
    ]


def test_no_secret_and_no_place_reaches_a_card(make, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = make(f"student.model={tmp_path / 'outputs'}")
    sealed = "".join(
        (p / "config.yaml").read_text()
        for p in (tmp_path / "outputs").glob("*/*-*")
        if (p / "config.yaml").is_file()
    )
    assert PASSWORD in sealed and str(tmp_path) in sealed, "the test plants nothing"
    for path in (tmp_path / "outputs").glob("*/*-*/manifest.json"):
        if path.parent.parent.name in CARDED:
            text = str(cards.card(path.parent))
            assert PASSWORD not in text and str(tmp_path) not in text and TOKEN not in text
    assert "base_model" not in header(cards.card(folder)), "a folder is no name on the hub"


def test_a_name_that_carries_a_password_is_not_told(make):
    address = f"https://me:{PASSWORD}@host/model"
    text = str(cards.card(make(f"student.model={address}", f"pair_data={address}")))
    assert (
        PASSWORD not in text and "base_model" not in header(text) and "datasets" not in header(text)
    )


def test_a_student_tells_its_scores_once(make):
    by_row, folder = make(name="scores"), make()
    by_hand = make("recipe=base", "student=folder", f"student.model={folder}", name="scores")
    assert by_row != by_hand
    card = cards.card(folder)
    # Wilson's intervals of 30 and 10 of 100.
    assert (
        str(card).count("| gsm8k | test | greedy | 100 | 30.0 [21.9, 39.6] | 10.0 [5.5, 17.4] |")
        == 1
    )
    [entry] = header(card)["model-index"]
    [result] = entry["results"]
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [
        ("accuracy", 30.0),
        ("no_answer", 10.0),
    ]


def test_a_dataset_tells_its_statistics_and_its_one_file(make, tmp_path):
    folder = make(name="pair_data")
    card = cards.card(folder)
    assert header(card)["configs"] == [{"config_name": "default", "data_files": "data.parquet"}]
    assert header(card)["size_categories"] == "n<1K"
    text = str(card)
    assert "of each tree the shortest" in text
    assert re.search(r"tokens, chosen +1 +3.0 ", text), text
    assert "No chain was dropped for an error class." in text
    assert 'load_dataset("me/pairs", split="train")' in str(cards.card(folder, repo="me/pairs"))


def test_dropped_error_classes_are_told(make, tmp_path):
    prepare(tmp_path / "outputs", drop=["content_repetition"])
    text = str(cards.card(make(name="pair_data")))
    assert re.search(r"dropped, erring +content repetition 1", text), text
    assert "No chain was dropped" not in text


def test_a_published_set_is_named_as_the_source(make, tmp_path):
    student = make("data=sky_t1", "recipe=sft")
    assert header(cards.card(student))["datasets"] == ["NovaSky-AI/Sky-T1_data_17k"]
    (chains,) = (tmp_path / "outputs" / "dataset").glob("sft-sky_t1-*")
    assert "of the published set `NovaSky-AI/Sky-T1_data_17k`" in str(cards.card(chains))


def test_a_licence_filled_in_by_hand_stays(make):
    folder = make(name="sft_data")
    path = cards.write(folder)
    assert "Not stated: `license`" in path.read_text()
    path.write_text(path.read_text().replace("---\n", "---\nlicense: cc-by-4.0\n", 1))
    cards.write(folder)
    assert header(path.read_text())["license"] == "cc-by-4.0"
    assert "`cc-by-4.0`, as whoever made it states" in path.read_text()
    cards.write(folder, license="apache-2.0")
    assert header(path.read_text())["license"] == "apache-2.0"
    path.write_text("---\nlicense: [\n---\n")
    with pytest.raises(UserError, match="header is no YAML"):
        cards.write(folder)


def test_a_stage_comes_with_its_card_and_another_one_leaves_it_finished(make, capfd):
    folder = make()
    told = read_manifest(folder)
    assert f"key `{told['key']}`" in (folder / "README.md").read_text()
    assert "README.md" not in told["files"] and "model.safetensors" in told["files"]
    cards.write(folder, license="mit")
    capfd.readouterr()
    assert make() == folder and "running" not in capfd.readouterr().out


def test_a_card_that_was_sealed_once_may_be_written_anew(make):
    folder = make(name="sft_data")
    manifest = read_manifest(folder)
    manifest["files"]["README.md"] = {"bytes": 1, "sha256": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert make(name="sft_data") == folder


def test_a_student_s_card_has_its_scores_once_they_are_there(make):
    path = make() / "README.md"
    assert "## Scores\n\nNone yet." in path.read_text()
    make(name="scores")
    assert "| gsm8k | test | greedy | 100 | 30.0 [21.9, 39.6] |" in path.read_text()


def test_a_stage_is_kept_where_its_card_cannot_be_written(make, monkeypatch, capsys):
    def fail(folder):
        raise UserError("no room for it")

    monkeypatch.setattr(cards, "write", fail)
    assert (make(name="sft_data") / "manifest.json").is_file()
    assert "its card was not written: no room for it" in capsys.readouterr().err


def test_a_folder_without_figures_has_a_card(make, tmp_path):
    for path in (tmp_path / "outputs" / prepared_stages.PREPARED).glob("*/*.json"):
        path.unlink()
    assert "No figures of it were kept." in str(cards.card(make()))
    assert "## Statistics" not in str(cards.card(make(name="sft_data")))


def test_only_students_and_datasets_have_cards(make, capsys):
    with pytest.raises(UserError, match="holds trees: cards are of"):
        cards.card(make(name="trees"))
    assert main(["/nowhere"]) == 2
    assert "is no finished stage" in capsys.readouterr().err
