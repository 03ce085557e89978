"""Cards tell what a student and a dataset are made of, and nothing of this machine; the hub."""

import base64
import json
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

import generate
import train
from marco import cards, hub, pipeline, stages
from marco.cli import Job
from marco.data.datasets import build_pairs, build_sft
from marco.data.published import PublishedConfig, build_published
from marco.errors import UserError
from marco.evaluation.metrics import summarise

from . import prepared_stages
from .data.trees import encode, mixed_tree
from .test_config import checked

PASSWORD = "hunter2-and-3"
TOKEN = "hf_thetokenofthetests"


def prepare(outputs, *, drop=()):
    """What the stages take: real statistics and figures, and files in place of weights."""
    rules = {"max_tokens": 100, "rng": random.Random(0)}
    rules |= {"classify": lambda text: ["content_repetition"] if "nine" in text else []}
    shared = rules | {"encode": encode, "per_tree": 1, "annotations": None}
    trees = [mixed_tree()]
    _, sft = build_sft(trees, bucket="longest", drop=(), **shared)
    _, pairs = build_pairs(trees, bucket="shortest", choice="shortest_prefix", drop=drop, **shared)
    verdicts = ["correct"] * 30 + ["wrong"] * 60 + ["no_answer"] * 10
    samples = [{"id": str(i), "verdict": v, "finish": "stop"} for i, v in enumerate(verdicts)]
    figures = summarise(samples, confidence=0.95, test_at=[], majority=False, resamples=10, seed=0)
    results = {"schema": 2, "student": "x", "row": "x", "title": "x", "seed": 0}
    results["tasks"] = {"gsm8k": figures}
    row = {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}]}
    outputs.mkdir(exist_ok=True)
    (outputs / "set.jsonl").write_text(json.dumps(row) + "\n")
    source = {"name": "s", "hub": "s", "subset": None, "split": "train", "rows": None}
    source |= {"file": str(outputs / "set.jsonl"), "take": "conversation", "system": True}
    config = PublishedConfig(**source, thoughts="as_published")
    _, published = build_published(config, encode=encode, per_row=1, drop=(), **rules)
    metrics = {"steps": 7.0, "seconds": 75.0, "last/loss": 0.25}
    files = {
        "trees/trees.jsonl": "{}\n",
        "reference/reference.bin": "0",
        "dataset-sft/stats.json": json.dumps(sft),
        "dataset-pairs/stats.json": json.dumps(pairs),
        "dataset-published/stats.json": json.dumps(published),
        **{f"dataset-{form}/data.parquet": "rows" for form in ("sft", "pairs", "published")},
        "student/metrics.json": json.dumps(metrics),
        "student/metrics.csv": "step,loss\n",
        "student/config.json": "{}",
        "student/model.safetensors": "weights",
        "student/tokenizer.json": "{}",
        "student/chat_template.jinja": "{}",
        "student/notes.txt": "not for the hub",
        "scores/results.json": json.dumps(results),
    }
    for name, text in files.items():
        path = outputs / prepared_stages.PREPARED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes stages of a config without models, and returns their folders.

    `make.config` takes the same overrides, for scripts.
    """
    monkeypatch.setattr(stages.work, "run", prepared_stages.run)
    monkeypatch.setattr(stages, "PRELOAD", [])
    (tmp_path / "train.jsonl").write_text('{"question": "1?", "answer": "#### 1"}\n')
    outputs = tmp_path / "outputs"
    prepare(outputs)

    def config_of(*overrides):
        config = checked(
            "recipe=masked_joint",
            "size=paper",
            f"task.train_file={tmp_path / 'train.jsonl'}",
            f"models.checkpoints.llama.model=https://me:{PASSWORD}@host/model",
            *overrides,
        )
        return config.model_copy(update={"outputs": outputs})

    def make(*overrides, name="student"):
        config = config_of(*overrides)
        student = pipeline.student(config)
        stage = {"student": student, "scores": pipeline.scores(config, student)}.get(name)
        if stage is None:
            stage = getattr(pipeline, name)(config)
        return stages.materialise(stage, outputs, cluster=config.cluster.model_dump())

    make.config = config_of
    return make


def header(card):
    return yaml.safe_load(str(card).split("---\n")[1])


def test_a_student_tells_its_key_config_lineage_versions_and_how_to_load_it(make):
    folder = make()
    manifest = stages.read_manifest(folder)
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
        if path.parent.parent.name in stages.CARDED:
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
    told = stages.read_manifest(folder)
    assert f"key `{told['key']}`" in (folder / "README.md").read_text()
    assert "README.md" not in told["files"] and "model.safetensors" in told["files"]
    cards.write(folder, license="mit")
    capfd.readouterr()
    assert make() == folder and "running" not in capfd.readouterr().out


def test_a_card_that_was_sealed_once_may_be_written_anew(make):
    folder = make(name="sft_data")
    manifest = stages.read_manifest(folder)
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
    assert cards.main(["/nowhere"]) == 2
    assert "is no finished stage" in capsys.readouterr().err


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
    assert cards.main(arguments) == 0
    assert server.repos == {"me/chains": False}
    assert header(server.files["datasets/me/chains/README.md"])["license"] == "mit"
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("https://huggingface.co/datasets/me/chains/commit/")
    )
    # What is public is not taken for private: that would publish what was meant to be kept.
    assert cards.main([str(folder), "--push", "me/chains"]) == 2
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
