"""Stages without models, of which cards tell."""

import json
import random

import pytest
import yaml

from marco import pipeline, processes, stages
from marco.data.datasets import build_pairs, build_sft
from marco.data.published import PublishedConfig, build_published
from marco.evaluation.metrics import summarise

from ..data.trees import encode, mixed_tree
from ..test_config import checked
from . import prepared_stages

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
    monkeypatch.setattr(processes, "PRELOAD", [])
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
