import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.reporting.allowlist import allowed

PLANTED = "sesame-open-please"


def test_only_listed_sections_pass():
    settings = {"loss": {"alpha": 1.0}, "cluster": {"address": "10.0.0.1"}, "seed": 3}
    assert allowed(settings, sections=["loss", "seed"]) == {"loss": {"alpha": 1.0}, "seed": 3}


@pytest.mark.parametrize(
    "name",
    ["api_key", "OPENAI_API_KEY", "apikey", "hf_token", "accessToken", "tokens", "client_secret"]
    + ["password", "Authorization", "credentials", "session_cookie", "private_part"],
)
def test_secret_names_do_not_pass_at_any_depth(name):
    settings = {"loss": {name: "x", "deep": [{name: "x", "beta": 0.1}]}, name: "x"}
    assert allowed(settings, sections=["loss", name]) == {"loss": {"deep": [{"beta": 0.1}]}}


def test_counts_of_tokens_are_no_tokens():
    kept = {"max_tokens": 300, "micro_batch_tokens": 1024}
    settings = {"trainer": kept | {"tokens_file": "x", "stop_tokens": True, "eos_token": "</s>"}}
    assert allowed(settings, sections=["trainer"]) == {"trainer": kept}


@pytest.mark.parametrize(
    "text",
    [
        "https://user:pw@host/v1",
        "https://host/v1?a=1&api_key=abc",
        "Bearer abc",
        "sk-proj-abcdefghijklmnop",
        "hf_abcdefghijklmnopqrst",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_texts_that_carry_credentials_do_not_pass(text):
    settings = {"models": {"thinking": text, "list": [text, "plain"], text: 1}}
    assert allowed(settings, sections=["models"]) == {"models": {"list": ["plain"]}}


def test_values_of_environment_secrets_do_not_pass(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", PLANTED)
    settings = {"models": {"header": f"x {PLANTED}", "name": "qwen"}}
    assert allowed(settings, sections=["models"]) == {"models": {"name": "qwen"}}


def test_ordinary_settings_pass_whole():
    settings = {
        "student": "outputs/students/sft-1a2b3c4d",
        "loss": {"preference": {"name": "cdpo", "beta": 0.1}, "mask": None, "on": True},
        "models": {"thinking": "Qwen/Qwen2.5-72B-Instruct", "url": "http://localhost:8000/v1"},
    }
    assert allowed(settings, sections=list(settings)) == settings


names = st.sampled_from(["loss", "alpha", "api_key", "auth_token", "Secret", "max_tokens"])
trees = st.recursive(
    st.sampled_from([PLANTED, 1, "plain", None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


@given(st.dictionaries(names, trees))
def test_no_planted_secret_passes_whatever_the_shape(settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANTED_KEY", PLANTED)
        kept = repr(allowed(settings, sections=["loss", "alpha", "api_key", "max_tokens"]))
    assert PLANTED not in kept
    assert "api_key" not in kept and "auth_token" not in kept and "Secret" not in kept
