"""Secrets planted in configs and the environment, and looked for in all that is written."""

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from marco.config import ROOT
from marco.reporting.allowlist import Redactor, credentials, without_credentials

from .test_sweep import cheap_train

IN_ENVIRONMENT = "sesame-open-please-7"
IN_PROXY = "proxy-word-9"
API_KEY = "0123456789abcdef" * 2
TOKEN = "hf_abcdefghijklmnopqrstuv12"
IN_URL = "config-word-7"
OWN_KEY = "the-key-of-a-server-8"
PLANTED = (IN_ENVIRONMENT, OWN_KEY, IN_PROXY, API_KEY, TOKEN, IN_URL)
ENVIRONMENT = {
    "SOME_SERVICE_TOKEN": IN_ENVIRONMENT,
    "VLLM_KEY": OWN_KEY,
    "HTTPS_PROXY": f"http://me:{IN_PROXY}@127.0.0.1:9",
    "OPENAI_API_KEY": API_KEY,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "https://me:word@host/v1"),
        ("model", "https://ghp_16charactersormore@github.com/o/r"),
        ("file", "s3://me:word@bucket/x"),
        ("file", "https://host/x.json?X-Amz-Signature=0a1b"),
        ("model", TOKEN),
        ("title", "with sk-proj-0123456789abcdefghij"),
        ("title", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl"),
        ("api_key", "short"),
        ("AWS_SECRET_ACCESS_KEY", "short"),
        ("hf_token", "short"),
        ("title", f"a word of the environment: {IN_ENVIRONMENT}"),
    ],
)
def test_what_is_refused_is_told_by_its_key_alone(name, value, monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", IN_ENVIRONMENT)
    values = {"a": [{"b": {name: value, "other": "x"}}], "n": 1, "none": None}
    assert list(credentials(values)) == [f"a.b.{name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key_env", "OPENAI_API_KEY"),
        ("max_tokens", "512"),
        ("model", "hf-internal-testing/tiny-random-LlamaForCausalLM"),
        ("urls", "http://a:8000/v1"),
        ("file", "https://host/x.json?download=true"),
        ("title", "basic arithmetic, by the bearer of tokens"),
        ("token", ""),
        ("outputs", "/data/hf_cache_llama3_2_1b_instruct"),
        ("model", "/mnt/sk-experiments-2025-run-07/trees"),
        ("file", "pypi-downloads-2024-dataset.jsonl"),
        ("file", "https://host/x?design=1&author=me&tokenizer=x"),
        ("model", "meta-llama/Llama-3.2-1B-Instruct"),
        ("outputs", "/home/martin/keys/experiments/runs"),
        ("backend", "kubernetes"),
        ("says", "not-needed"),
    ],
)
def test_what_configs_hold_is_no_secret(name, value, monkeypatch):
    ordinary = {
        "TOKENIZER_NAME": "meta-llama/Llama-3.2-1B-Instruct",
        "KEY_DIR": "/home/martin/keys/experiments",
        "GIT_AUTHOR_NAME": "martin",
        "VAULT_AUTH_METHOD": "kubernetes",
        "OPENAI_API_KEY": "not-needed",
        "OLDPWD": "/home/martin/keys/experiments",
        "PWD": "/home/martin/keys/experiments",
    }
    for variable, told in ordinary.items():
        monkeypatch.setenv(variable, told)
    assert without_credentials(value) == value
    assert not list(credentials({name: value}))


def test_what_libraries_say_stays_readable(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", IN_ENVIRONMENT)
    said = "hf_hub_download() with HF_HUB_ENABLE_HF_TRANSFER=1, engine.api_key_env=OPENAI_API_KEY"
    assert without_credentials(said) == said
    told = f"get https://me:word@host/x?a=1&api_key={IN_URL} {IN_ENVIRONMENT}, {TOKEN}"
    kept = "get https://[removed]@host/x?a=1&api_key=[removed] [removed], [removed]"
    assert without_credentials(told) == kept


@pytest.mark.parametrize(
    "name",
    ["OPENAI_KEY", "VLLM_KEY", "GITHUB_PAT", "PGPASSWORD", "MYSQL_PWD", "KEY", "db_password"],
)
def test_what_people_call_their_keys_is_removed(name, monkeypatch):
    monkeypatch.setenv(name, IN_ENVIRONMENT)
    for remove in (without_credentials, Redactor({})):
        assert remove(f"no way with {IN_ENVIRONMENT}") == "no way with [removed]"


def test_no_run_is_refused_for_what_a_variable_of_any_name_holds(monkeypatch):
    monkeypatch.setenv("MODEL_KEY", "Qwen/Qwen2.5-1.5B-Instruct")
    assert not list(credentials({"model": "Qwen/Qwen2.5-1.5B-Instruct"}))


def test_a_folder_in_a_variable_is_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("START_PWD", str(tmp_path))
    for remove in (without_credentials, Redactor({})):
        assert remove(f"see {tmp_path}/outputs") == f"see {tmp_path}/outputs"


def test_no_config_of_ours_is_refused():
    files = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "experiments").glob("*.yaml")]
    assert len(files) > 100
    for path in files:
        assert not list(credentials(OmegaConf.to_container(OmegaConf.load(path)))), path


@pytest.mark.parametrize(
    "override",
    [
        f"student.model=https://me:{IN_URL}@host/model",
        f"+engine.api_key={IN_URL}",
        f"recipe.title='{TOKEN}'",
        "recipe.title=${oc.env:SOME_SERVICE_TOKEN}",
    ],
)
def test_a_run_with_a_secret_in_its_config_is_refused_and_nothing_written(override, tmp_path):
    ended = sweep(tmp_path, override)
    assert ended.returncode == 2
    key = override.lstrip("+").partition("=")[0]
    assert f"error: {key}: carries a password, token or key" in ended.stderr
    assert not found(tmp_path) and not any(s in ended.stdout + ended.stderr for s in PLANTED)


def test_no_secret_of_the_environment_is_in_what_a_sweep_writes(tmp_path):
    """A row that ends well, and one whose error tells secrets: records, table, stages, output."""
    keys = ", ".join((API_KEY, TOKEN, IN_ENVIRONMENT, OWN_KEY))
    says = f"no way by http://me:{IN_PROXY}@127.0.0.1:9 with {keys}"
    ended = sweep(tmp_path, rows=("recipe=sft,dpo", "seed=0"), says=says)
    assert ended.returncode == 2 and "no way by http://" in ended.stderr
    told = [path.read_text() for path in tmp_path.glob("table/*/rows/*.json")]
    assert len(told) == 2 and any("MemoryError: no way by http://" in text for text in told)
    assert list(tmp_path.glob("scores/*/config.yaml")) and list(tmp_path.glob("table/*/table.tex"))
    assert not found(tmp_path) and not any(s in ended.stdout + ended.stderr for s in PLANTED)


def sweep(
    outputs: Path, *overrides: str, rows: tuple[str, ...] = ("recipe=sft", "seed=0"), says: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cheap_train(outputs, *overrides, poison="9,0" if says else "", rows=rows),
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, "MARCO_TEST_SAYS": says},
        capture_output=True,
        text=True,
    )


def found(outputs: Path) -> list[tuple[str, str]]:
    """Which file of a folder holds which secret, in its name or content."""
    files = [path for path in outputs.rglob("*") if path.is_file()]
    return [
        (str(path), secret)
        for path in files
        for secret in PLANTED
        if secret.encode() in str(path).encode() + path.read_bytes()
    ]
