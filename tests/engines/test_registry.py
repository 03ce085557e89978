from pathlib import Path

import pytest

from marco.engines.registry import ScriptedConfig, make_engine, model_folder, share_of
from marco.errors import UserError


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert model_folder(str(tmp_path), cache=tmp_path / "cache") == tmp_path


def test_a_hub_name_is_its_downloaded_folder(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append(name)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert model_folder("some/model", cache=tmp_path) == tmp_path / "snapshot"
    assert asked == ["some/model"]


def test_a_model_that_the_hub_does_not_give_is_told(tmp_path: Path, monkeypatch) -> None:
    def download(name: str, **options: object) -> str:
        raise ConnectionError("no route\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UserError, match="'some/model': it is no folder.*ConnectionError: no route"):
        model_folder("some/model", cache=tmp_path)


def test_an_unknown_script_is_told(tmp_path: Path) -> None:
    config = ScriptedConfig(name="scripted", script="draw", max_num_seqs=1, latency_s=0.0, log=None)
    with pytest.raises(UserError, match="no script 'draw'; there are"):
        make_engine(config, tmp_path, model="m")


def test_workers_share_the_replicas_of_a_server() -> None:
    settings = {"name": "openai", "urls": ["a", "b", "c", "d", "e"], "max_num_seqs": 96}
    shares = [share_of(settings, index=i, workers=2) for i in range(2)]
    assert [share["urls"] for share in shares] == [["a", "c", "e"], ["b", "d"]]
    assert {share["max_num_seqs"] for share in shares} == {96}
    many = [share_of(settings, index=i, workers=12) for i in range(12)]
    assert {url for share in many for url in share["urls"]} == set("abcde")
    assert {share["max_num_seqs"] for share in many} == {40}  # 12 * 40 = 5 * 96
    assert share_of(settings, index=0, workers=1) == settings
    own = {"name": "vllm", "max_num_seqs": 96}
    assert share_of(own, index=3, workers=8) == own
