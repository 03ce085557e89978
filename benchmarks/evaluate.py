"""Evaluation against lm-evaluation-harness and a bare vLLM call; and verdicts per second.

python benchmarks/evaluate.py --student outputs/student/sft-<...> --problems 200 --repeats 3

A student (the embedded model, if none is named) on problems of the embedded task: the same prompts
and lengths for all, greedy.
`ours` is what evaluate.py does with a started engine: journal, scheduler, verdicts, error classes
and files. `bare` is one call of vLLM's `generate` with all prompts. `lm_eval` is the harness with
its Hugging Face backend at the best of `--batches` and `--dtypes`, found on the first problems.
Each part runs in a process of its own, with the allocator's settings that our stages have, in
turns; starts of engines do not count. Verdicts per second are of real outputs in `--data` (see
README), and left out where there are none. The last line is one JSON object.
"""

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measures import apart, rounded
from search import MODELS, config_of, sections

from marco.config import ROOT
from marco.engines.registry import model_folder
from marco.processes import CHILD_ENVIRONMENT, quiet
from marco.tasks.numbers import canonical
from marco.tasks.problem import Problem
from marco.tasks.registry import make_task

DATA = ROOT.parent / "shared" / "data"


STUDENT = os.environ.get("MARCO_BENCHMARK_STUDENT")  # for the parts


def student() -> Path:
    return Path(STUDENT) if STUDENT else model_folder("embedded", cache=MODELS)


def problems_of(number: int) -> tuple[Any, list[Problem]]:
    # As for a long evaluation: compiled, after a minute more of start, which does not count here,
    # and with more sequences at once. The harness gets its best batch size, too.
    engine = ("engine.enforce_eager=false", "engine.max_num_seqs=256")
    config = config_of(f"task.test={number}", "decoding=greedy", *engine)
    return config, make_task(config.task).problems("test")


def prompts_of(problems: list[Problem]) -> list[tuple[int, ...]]:
    from marco.engines.prompts import ChatTokenizer

    tokenizer = ChatTokenizer.load(student())
    return [tokenizer.prompt([{"role": "user", "content": p.problem}]) for p in problems]


def ours(number: int) -> dict[str, float]:
    """Problems per second of the evaluation, from the first request to the written scores."""
    from marco.driver.worker import Worker
    from marco.evaluation.ask import Question, Replies
    from marco.evaluation.grade import write_scores
    from marco.evaluation.runner import asking, longest_first
    from marco.evaluation.start import question_starter

    config, problems = problems_of(number)
    values = sections(config) | {"tasks": [sections(config)["task"]]}
    task = make_task(config.task)
    questions = [Question(task=task.name, problem=problem) for problem in problems]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        worker = Worker(
            asking(values, student()),
            question_starter,
            index=0,
            run="benchmark",
            folder=out,
            models=MODELS,
        )
        started = time.perf_counter()
        found = {f.place: f for f in worker.walk(longest_first(list(enumerate(questions))))}
        replies = [Replies.from_json(found[i].line).replies for i in range(len(questions))]
        labels = {"student": "embedded", "row": "benchmark", "title": "benchmark"}
        graded = [(task, problems, replies)]
        write_scores(graded, values, labels, keys={}, seconds=None, max_tokens={}, out=out)
        seconds = time.perf_counter() - started
        worker.close()
    tokens = sum(reply.tokens or 0 for own in replies for reply in own)
    return {"problems_per_s": number / seconds, "tokens_per_problem": tokens / number}


def bare(number: int) -> dict[str, float]:
    """Problems per second of one call of vLLM with all prompts."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from marco.engines.vllm import start

    config, problems = problems_of(number)
    llm = start(student(), config.engine)
    prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts_of(problems)]
    sampling = SamplingParams(temperature=0.0, max_tokens=config.task.response_tokens)
    started = time.perf_counter()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    seconds = time.perf_counter() - started
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"problems_per_s": number / seconds, "tokens_per_problem": tokens / number}


def lm_eval(number: int, batch: int, dtype: str) -> dict[str, float]:
    """Problems per second of the harness, its Hugging Face backend, greedy, to the same lengths."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    config, problems = problems_of(number)
    model = HFLM(pretrained=str(student()), device="cpu", dtype=dtype, batch_size=batch)
    settings = {"until": [], "max_gen_toks": config.task.response_tokens, "do_sample": False}
    requests = [
        Instance("generate_until", {}, (model.tokenizer.decode(ids), settings), i)
        for i, ids in enumerate(prompts_of(problems))
    ]
    started = time.perf_counter()
    texts = model.generate_until(requests, disable_tqdm=True)
    seconds = time.perf_counter() - started
    tokens = sum(len(model.tok_encode(text)) for text in texts)
    return {"problems_per_s": number / seconds, "tokens_per_problem": tokens / number}


def verdicts(data: Path) -> dict[str, float]:
    """Verdicts per second by task, on real outputs, workers included."""
    figures = {}
    for name, read in {"gsm8k": _gsm8k, "math": _math}.items():
        items = read(data)
        if not items:
            continue
        config = config_of(f"task={name}")
        task = make_task(config.task)
        few, rest = items[:100], items[100:]
        task.verify_all(few)  # the workers have started
        started = time.perf_counter()
        task.verify_all(rest)
        figures[name] = len(rest) / (time.perf_counter() - started)
    return figures


def _gsm8k(data: Path) -> list[tuple[str, Problem]]:
    path = data / "gsm8k" / "example_model_solutions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    golds = [canonical(row["ground_truth"].rpartition("A: ")[2]) for row in rows]
    assert None not in golds, f"{path}: a gold answer that is no number after its last `A: `"
    return [
        (row[model]["solution"], Problem(id=str(i), problem=row["question"], answer=str(gold)))
        for i, (row, gold) in enumerate(zip(rows, golds, strict=True))
        for model in models
    ]


def _math(data: Path) -> list[tuple[str, Problem]]:
    path = data / "long_cot_outputs" / "outputs.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [
        (row["output"], Problem(id=str(i), problem=row["question"], answer=str(row["gold"])))
        for i, row in enumerate(rows)
        if row["benchmark"].startswith("math")
    ]


PARTS: dict[str, Callable[..., dict[str, float]]] = {"ours": ours, "bare": bare, "lm_eval": lm_eval}


def run(model: Path | None, part: str, *arguments: Any) -> dict[str, float]:
    """The figures of a part, in a process of its own."""
    environment = CHILD_ENVIRONMENT | os.environ
    environment |= {"MARCO_BENCHMARK_STUDENT": str(model)} if model else {}
    figures: dict[str, float] = apart(__file__, "--part", part, *arguments, environment=environment)
    print(f"{part} {' '.join(map(str, arguments))}: {rounded(figures)}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--student", type=Path, help="its folder")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--few", type=int, default=64, help="problems of the search for its best")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--part", nargs="+", help="one part alone, in this process")
    arguments = parser.parse_args()
    quiet()
    if arguments.part:
        name, number, *rest = arguments.part
        found = PARTS[name](int(number), *(int(r) if r.isdecimal() else r for r in rest))
        print(json.dumps(found))
        return
    few = {
        (batch, dtype): run(arguments.student, "lm_eval", arguments.few, batch, dtype)[
            "problems_per_s"
        ]
        for batch in arguments.batches
        for dtype in arguments.dtypes
    }
    best = max(few, key=few.__getitem__)
    rates: dict[str, list[float]] = {name: [] for name in PARTS}
    for turn in range(arguments.repeats):
        for name in ("ours", "bare") if turn % 2 == 0 else ("bare", "ours"):
            rates[name].append(run(arguments.student, name, arguments.problems)["problems_per_s"])
        rates["lm_eval"].append(
            run(arguments.student, "lm_eval", arguments.problems, *best)["problems_per_s"]
        )
    middle = {name: statistics.median(found) for name, found in rates.items()}
    result = {
        "problems_per_s": middle,
        "over_lm_eval": middle["ours"] / middle["lm_eval"],
        "of_bare_vllm": middle["ours"] / middle["bare"],
        "lm_eval_best": {"batch": best[0], "dtype": best[1]},
        "rates": rates,
        "verdicts_per_s": verdicts(arguments.data),
    }
    print(json.dumps(rounded(result)))


if __name__ == "__main__":
    main()
