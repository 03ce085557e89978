"""A real vLLM server, alone and beside a real engine in the search's own process."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from marco.config import ROOT
from marco.engines.openai import OpenAIEngine
from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Request, Response, Sampling
from marco.errors import UserError

from .servers import config, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(embedded_folder: Path) -> Iterator[str]:
    port = free_port()
    arguments = "--dtype bfloat16 --max-model-len 2048 --enforce-eager --max-num-seqs 16"
    server = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
        + ["--model", str(embedded_folder), "--served-model-name", "small"]
        + ["--gpu-memory-utilization", "0.3", *arguments.split()],
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def test_a_real_server_answers_in_our_terms(url: str, embedded_folder: Path) -> None:
    engine = OpenAIEngine("x", config(url, served_model="small", timeout_s=60, hedge_after_s=None))
    tokenizer = ChatTokenizer.load(embedded_folder)
    question = [{"role": "user", "content": "Count from one to five."}]
    prompt = tokenizer.prompt(question) + tuple(tokenizer.encode("one, two, three, four, five"))
    for number, stop in enumerate(((), (" ", ","))):
        engine.submit(
            Request(
                key=f"p/{number}",
                problem="p",
                model="x",
                kind="chain",
                prompt_ids=prompt,
                n=2,
                stop=stop,
                sampling=Sampling(temperature=0.8, top_p=1.0, max_tokens=12),
            )
        )
    found: dict[str, Response] = {}
    while len(found) < 2:
        found |= {response.key: response for response in engine.poll()}
    engine.close()
    free, stopped = found["p/0"].completions, found["p/1"].completions
    assert all(0 < c.tokens <= 12 for c in free)
    assert all(" " not in c.text and "," not in c.text for c in stopped)
    assert {c.finish for c in (*free, *stopped)} <= {"stop", "length"}


def test_a_model_that_the_server_does_not_have_is_told(url: str) -> None:
    engine = OpenAIEngine("other", config(url))
    sampling = Sampling(temperature=0.8, top_p=1.0, max_tokens=2)
    engine.submit(
        Request(
            key="p/0", problem="p", model="x", kind="k", prompt_ids=(1,), n=1, stop=(),
            sampling=sampling,
        )
    )  # fmt: skip
    with pytest.raises(UserError, match="refuses: HTTP 404.*other.* does not exist"):
        for _ in range(100):
            engine.poll()
    engine.close()


def test_two_real_engines_write_one_tree(url: str, tmp_path: Path, embedded_folder: Path) -> None:
    """One model thinks in the search's process, another checks on a server, each in its own way."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "models").symlink_to(embedded_folder.parent)
    done = subprocess.run(
        [sys.executable, str(ROOT / "generate.py"), f"outputs={outputs}", "logger=none"]
        + ["task.train=4", "pattern=c", "models=small_pair"]
        + [f"models.checkpoints.{name}.model=embedded" for name in ("qwen", "llama")]
        + [
            "models.checkpoints.llama.temperature=0.3",
            "+engine@models.checkpoints.llama.engine=openai",
        ]
        + [f"models.checkpoints.llama.engine.urls=[{url}]"]
        + ["models.checkpoints.llama.engine.served_model=small"]
        + ["models.checkpoints.llama.engine.max_model_len=2048"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert "trees arithmetic" in done.stdout, done.stdout + done.stderr
    [path] = outputs.glob("trees/arithmetic*/trees.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    nodes = [node for line in lines for node in json.loads(line)["nodes"]]
    writers = {(node["kind"], node["model"]) for node in nodes}
    assert ("double_check", "llama") in writers and ("thinking", "qwen") in writers
    assert not {kind for kind, model in writers if model == "llama"} - {"double_check"}
