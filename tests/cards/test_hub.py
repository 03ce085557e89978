"""Students and datasets go to a hub, here one on this machine, by one flag."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import generate
import train
from marco import pipeline
from marco.cards import hub
from marco.cards.__main__ import main
from marco.cli import Job
from marco.errors import UserError

from .conftest import PASSWORD, TOKEN, header


class Hub(BaseHTTPRequestHandler):
    """The hub's answers to an upload: a token, repositories, files in commits."""

    repos: dict
    files: dict
    role: str

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] == "others":
                return self.answer(403, {"error": "You don't have the rights"})
            known = repo in self.repos
            self.repos.setdefault(repo, asked["visibility"] == "private")
            return self.answer(409 if known else 200, {"url": f"https://huggingface.co/{repo}"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer(200, {"files": [{"path": path} | modes for path in files]})
        repo = self.path.split("/api/")[1].split("/commit/")[0]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.files[f"{repo}/{line['value']['path']}"] = content.decode(errors="replace")
        url = f"https://huggingface.co/{repo}/commit/{'0' * 40}"
        return self.answer(200, {"commitUrl": url, "commitOid": "0" * 40})

    def do_GET(self):
        if self.path == "/api/whoami-v2":
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self.answer(401, {"error": "Invalid username or password."})
            account = {"name": "me", "orgs": [{"name": "lab"}]}
            return self.answer(200, account | {"auth": {"accessToken": {"role": self.role}}})
        _, _, repo = self.path.removeprefix("/api/").partition("/")
        if repo not in self.repos:  # a repository, or a file of one
            return self.answer(404, {"error": "Repository not found"})
        return self.answer(200, {"id": repo, "private": self.repos[repo], "tags": []})

    def answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A hub on this machine, and a token that it takes."""
    handler = type("Handler", (Hub,), {"repos": {}, "files": {}, "role": "write"})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{listening.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield handler
    listening.shutdown()
    listening.server_close()


def test_a_student_goes_to_the_hub_with_the_datasets_it_learnt(make, server, tmp_path):
    folder = make()
    commits = hub.push_with_datasets(folder, "me")
    (pairs,) = (tmp_path / "outputs" / "dataset").glob("pairs-*")
    (chains,) = (tmp_path / "outputs" / "dataset").glob("sft-*")
    assert server.repos == dict.fromkeys([f"me/{f.name}" for f in (pairs, chains, folder)], True)
    student = f"models/me/{folder.name}"
    dataset_files = ("README.md", "data.parquet", "stats.json")
    assert set(server.files) == {
        *(f"datasets/me/{f.name}/{name}" for f in (pairs, chains) for name in dataset_files),
        *(f"{student}/{name}" for name in ("README.md", "chat_template.jinja", "config.json")),
        *(f"{student}/{name}" for name in ("metrics.csv", "metrics.json", "model.safetensors")),
        f"{student}/tokenizer.json",
    }
    card = server.files[f"{student}/README.md"]
    assert header(card)["datasets"] == [f"me/{pairs.name}", f"me/{chains.name}"]
    assert f'from_pretrained("me/{folder.name}")' in card
    assert commits[-1] == f"https://huggingface.co/{student}/commit/{'0' * 40}"
    everything = "".join(server.files.values())
    assert PASSWORD not in everything and str(tmp_path) not in everything
    assert TOKEN not in everything


def test_the_command_pushes_one_folder_under_a_name(make, server, capsys):
    folder = make(name="sft_data")
    arguments = [str(folder), "--push", "me/chains", "--public", "--license", "mit"]
    assert main(arguments) == 0
    assert server.repos == {"me/chains": False}
    assert header(server.files["datasets/me/chains/README.md"])["license"] == "mit"
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("https://huggingface.co/datasets/me/chains/commit/")
    )
    # What is public is not taken for private: that would publish what was meant to be kept.
    assert main([str(folder), "--push", "me/chains"]) == 2
    assert "to me/chains: it is public" in capsys.readouterr().err


def test_what_the_hub_refuses_is_told_in_a_line(make, server, monkeypatch):
    folder = make(name="sft_data")

    def refused(repo="me/x"):
        with pytest.raises(UserError) as caught:
            hub.push(folder, repo)
        assert len(str(caught.value).splitlines()) == 1 and TOKEN not in str(caught.value)
        return str(caught.value)

    assert "may not write there" in refused("others/x")
    assert "Repo id must" in refused("me/a name")
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    assert "the hub refuses the token in HF_TOKEN" in refused()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9: ConnectError: " in refused()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused()
    monkeypatch.setenv("HF_TOKEN", " ")
    assert "needs a token" in refused()
    assert server.files == {}


@pytest.fixture
def script(make, monkeypatch, tmp_path):
    """Runs a script's function on a config."""
    monkeypatch.setattr(pipeline, "check_contamination", lambda config: None)

    def run(function, *overrides):
        overrides = ("logger=none", *overrides)
        function(make.config(*overrides), Job(overrides=overrides, folder=tmp_path))

    return run


def test_one_key_pushes_what_training_and_generating_make(script, server, tmp_path, capsys):
    script(generate.generate, "push_to_hub=me")
    chains, pairs = (
        next((tmp_path / "outputs" / "dataset").glob(f"{form}-*")) for form in ("sft", "pairs")
    )
    assert set(server.repos) == {f"me/{chains.name}", f"me/{pairs.name}"}
    script(train.train, "push_to_hub=lab")
    (student,) = (tmp_path / "outputs" / "student").glob("conservative-*")
    pushed = {name.split("/", 1)[1] for name in server.files if name.startswith("models/")}
    assert f"lab/{student.name}/README.md" in pushed
    assert "| gsm8k | test |" in server.files[f"models/lab/{student.name}/README.md"]
    assert set(server.repos) >= {f"lab/{pairs.name}", f"lab/{chains.name}", f"lab/{student.name}"}
    assert capsys.readouterr().out.count("pushed: https://huggingface.co/") == 2 + 3
    for path in (tmp_path / "outputs").glob("*/*-*/config.yaml"):
        assert "push_to_hub" not in path.read_text()


def test_a_row_that_trains_nothing_pushes_nothing(script, server):
    script(train.train, "push_to_hub=me", "recipe=base")
    assert server.repos == {}


@pytest.mark.parametrize(
    ("owner", "token", "role", "told"),
    [
        ("me", None, "write", "needs a token"),
        ("me", "hf_stale", "write", "the hub refuses the token in HF_TOKEN"),
        ("others", TOKEN, "write", "the token in HF_TOKEN is for me, lab"),
        ("lab", TOKEN, "read", "the token in HF_TOKEN may only read"),
    ],
)
@pytest.mark.parametrize("function", [generate.generate, train.train])
def test_what_cannot_be_pushed_is_told_before_any_work(
    script, server, monkeypatch, tmp_path, function, owner, token, role, told
):
    server.role = role
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=told):
        script(function, f"push_to_hub={owner}")
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"prepared", "set.jsonl"}
