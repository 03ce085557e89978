import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.reporting.allowlist import Redactor, allowed

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


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see https://me:hunter22@host/v1", "see https://[removed]@host/v1"),
        ("https://host/v1?a=1&api_key=abc&b=2", "https://host/v1?a=1&api_key=[removed]&b=2"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [removed]"),
        ("engine.api_key=topsecret given", "engine.api_key=[removed] given"),
        ('{"password": "hunter22"}', '{"password": "[removed]"}'),
        ("sk-proj-abcdefghijklmnop!", "[removed]!"),
        ("a eyJhbGciOiJI.eyJzdWIiOiIx.abc_d b", "a [removed] b"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----\nend",
            "[removed]\nend",
        ),
        ("half \ud800 of a pair", "half ? of a pair"),
    ],
)
def test_what_looks_secret_is_cut_out_of_texts(text, clean):
    assert Redactor({})({"a": [text, 1.5, None]}) == {"a": [clean, 1.5, None]}


@pytest.mark.parametrize(
    "text",
    [
        "Basic arithmetic: the bearer of 3 tokens has a key = 12 and 4 * 5 @ 2.",
        "basic characteristics, responsibilities of the bearer",
        "max_tokens=512, tokens: 300; the secret: multiply. x?y:z & w=3",
        "<thinking>\nWait! 12 * 3 = 36 // http://host:8000/v1/path\n</thinking>",
        "mail me@host, or medium.com/@me",
    ],
)
def test_ordinary_texts_stay_as_they_are(text):
    assert Redactor({})(text) == text


def test_secrets_of_the_settings_and_the_environment_are_cut_out_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", PLANTED)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-word@host:3128")
    settings = {
        "engine": {"api_key": "from-config", "max_tokens": 300},
        "models": [{"url": "https://me:from-url@host"}],
    }
    found = f"{PLANTED}, proxy-word, from-config, from-url, 300"
    assert Redactor(settings)({found: found}) == {
        f"[removed]{', [removed]' * 3}, 300": f"[removed]{', [removed]' * 3}, 300"
    }


@given(st.text(st.sampled_from("eyJ-.://@?&=key bearer0123456789BEGIN"), max_size=300))
def test_cutting_out_is_settled_after_one_pass(text):
    once = Redactor({})(text)
    assert Redactor({})(once) == once


def test_hostile_texts_take_no_time_that_grows_with_their_square():
    for hostile in ("eyJ-", "://", "?", "-----BEGIN ", "basic ", "api_key", "&key"):
        Redactor({})(hostile * 50_000)  # minutes, if it were quadratic
