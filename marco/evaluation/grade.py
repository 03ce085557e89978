"""From replies to scores: verdicts, error classes and figures; also of replies made elsewhere."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marco.errors import UserError
from marco.evaluation.ask import Reply
from marco.evaluation.error_classes import ErrorClassesConfig, classify, primary
from marco.evaluation.metrics import summarise
from marco.evaluation.official import official_scores
from marco.progress import Progress
from marco.tasks.files import read_rows
from marco.tasks.problem import Problem
from marco.tasks.task import Task
from marco.tasks.verdict import NO_ANSWER, Verdict

SCHEMA = 2
CHUNK = 256  # replies that are graded between two looks at the clock
MOST = 10**9  # what a turn, a try and a number of tokens lie below
Row = dict[str, Any]
Graded = tuple[Task, Sequence[Problem], Sequence[Sequence[Reply]]]


def grade(
    config: Mapping[str, Any],
    labels: Mapping[str, Any],
    *,
    task: Task,
    problems: Sequence[Problem],
    responses: Path,
    out: Path,
) -> None:
    """Grade the responses of a file and write `results.json` and `samples.jsonl` to `out`.

    Problems without a response are left out, and told.
    """
    given = read_replies(responses, problems)
    answered = [problem for problem in problems if problem.id in given]
    if left := len(problems) - len(answered):
        print(f"  {left} of {len(problems)} problems have no response: not graded", flush=True)
    replies = [given[problem.id] for problem in answered]
    tries = {reply.attempt for own in replies for reply in own}
    due = sum((1 + len(problem.follow_ups)) * len(tries) for problem in answered)
    if missing := due - sum(map(len, replies)):
        print(f"  {missing} of {due} turns and tries have no response: not graded", flush=True)
    keys = {"responses": responses.name}
    graded = [(task, answered, replies)]
    write_scores(graded, config, labels, keys=keys, seconds=None, max_tokens={}, out=out)


def write_scores(
    graded: Sequence[Graded],
    config: Mapping[str, Any],
    labels: Mapping[str, Any],
    *,
    keys: Mapping[str, str],
    seconds: float | None,
    max_tokens: Mapping[str, int],
    out: Path,
) -> None:
    """Grade replies by task, and write them with their figures.

    `seconds` is the time of all replies together (with the engine's start, and since the last one
    where it was broken off), None where they were made elsewhere. `max_tokens` are the tokens that
    a reply could have, by task, where that is known.
    """
    classes = ErrorClassesConfig(**config["error_classes"])
    bootstrap = {name: config[name] for name in ("confidence", "resamples", "seed")}
    results = {}
    with (out / "samples.jsonl").open("w", encoding="utf-8") as file:
        for task, problems, replies in graded:
            rows = grade_replies(task, problems, replies, classes)
            file.writelines(_to_json(row) + "\n" for row in rows)
            figures = summarise(
                rows,
                test_at=config["decoding"]["test_at"],
                majority=config["decoding"]["majority"],
                ordered=config["decoding"]["method"] == "mcts",
                **bootstrap,
            )
            own: Row = {"seconds": seconds if len(graded) == 1 else None}
            limit = {"max_tokens": max_tokens.get(task.name)}
            official = official_scores(task.name, task.figures(rows), rows, **bootstrap)
            results[task.name] = figures | official.figures | own | limit
            results |= {name: entry | limit for name, entry in official.entries.items()}
            for name in (task.name, *official.entries):
                print(f"  {_line(name, results[name])}", flush=True)
    record = {
        "schema": SCHEMA,
        "student": labels["student"],
        "row": labels["row"],
        "title": labels["title"],
        "seed": config["seed"],
        "split": config["split"],
        "seconds": seconds,
        "tasks": results,
        "config": dict(config),
        "keys": dict(keys),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")


def grade_replies(
    task: Task,
    problems: Sequence[Problem],
    replies: Sequence[Sequence[Reply]],
    classes: ErrorClassesConfig,
) -> list[Row]:
    """A row for each reply: its verdict and error classes."""
    items = [
        (problem, (problem, *problem.follow_ups)[reply.turn - 1], reply)
        for problem, own in zip(problems, replies, strict=True)
        for reply in own
    ]
    has_votes = any(reply.attempt for _, _, reply in items)
    progress = Progress(f"grade {task.name}", len(items), "replies")
    rows: list[Row] = []
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        verdicts = task.verify_all([(reply.text, asked) for _, asked, reply in chunk])
        for (problem, asked, reply), verdict in zip(chunk, verdicts, strict=True):
            row = _row(task, problem, asked, reply, verdict, classes)
            if has_votes and verdict.verdict != NO_ANSWER:
                row["vote"] = task.answer_of(reply.text, asked)
            rows.append(row)
        progress.update(len(rows), replies_per_s=progress.rate(len(rows)))
    progress.close()
    return rows


def _row(
    task: Task,
    problem: Problem,
    asked: Problem,
    reply: Reply,
    verdict: Verdict,
    classes: ErrorClassesConfig,
) -> Row:
    findings = classify(
        reply.text,
        finish=reply.finish,
        verdict=verdict.verdict,
        simple=not task.asks_for_thought,
        config=classes,
    )
    return {
        "task": task.name,
        "id": problem.id,
        "group": problem.group,
        "turn": reply.turn,
        "try": reply.attempt,
        "prompt": asked.problem,
        "response": reply.text,
        "answer": verdict.answer,
        "gold": asked.answer,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "is_flagged": verdict.is_flagged,
        "details": dict(verdict.details),
        "error_class": primary(findings),
        "error_classes": [
            {"name": f.name, "start": f.start, "period": f.period, "evidence": f.evidence}
            for f in findings
        ],
        "tokens": reply.tokens,
        "spent": reply.spent,
        "finish": reply.finish,
    }


def _to_json(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False)
    # Half of a surrogate pair, which a model can write, is no UTF-8.
    return text if text.isascii() or _is_utf8(text) else json.dumps(row)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_replies(path: Path, problems: Sequence[Problem]) -> dict[str, list[Reply]]:
    """Replies by the id of their problem, in the order of try and turn.

    Rows hold `id` (or `key`) and `response`, and where they apply `turn` (from 1 on), `try`,
    `finish` (or `finish_reason`) and `tokens`. UserError for a row that lacks something, for an id
    that no problem has, a turn that is not there, and for a response that is given twice.
    """
    known = {problem.id: problem for problem in problems}
    found: dict[str, list[Reply]] = {}
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        id = _first(row, "id", "key")
        if id is None:
            raise UserError(f"{where}: no `id` (or `key`) of a problem")
        if str(id) not in known:
            raise UserError(f"{where}: no problem has the id {id!r}")
        reply = _reply(row, where)
        turns = 1 + len(known[str(id)].follow_ups)
        if reply.turn > turns:
            raise UserError(f"{where}: turn {reply.turn}, but problem {id!r} has {turns}")
        found.setdefault(str(id), []).append(reply)
    for id, replies in found.items():
        counts = Counter((reply.attempt, reply.turn) for reply in replies)
        if max(counts.values()) > 1:
            raise UserError(
                f"{path}: problem {id!r} has several responses: number them by `try` (0, 1, ...)"
            )
        replies.sort(key=lambda reply: (reply.attempt, reply.turn))
    return found


def _reply(row: Mapping[str, Any], where: str) -> Reply:
    text = row.get("response", "")
    finish = _first(row, "finish", "finish_reason") or None
    numbers = {name: _number(row.get(name)) for name in ("turn", "try", "tokens")}
    if "response" not in row or not isinstance(text, str | None):
        raise UserError(f"{where}: no `response` that is text")
    for name, value in numbers.items():
        least = int(name == "turn")
        if value is not None and (type(value) is not int or not least <= value < MOST):
            raise UserError(
                f"{where}: `{name}` is {_shown(value)}: expected a whole number from {least} to "
                f"{MOST - 1:,}"
            )
    if finish not in (None, "stop", "length"):
        raise UserError(f"{where}: `finish` is {finish!r}: expected stop or length")
    return Reply(
        text=text or "",
        finish=finish,
        tokens=numbers["tokens"],
        attempt=numbers["try"] or 0,
        turn=numbers["turn"] or 1,
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _first(row: Mapping[str, Any], *names: str) -> Any:
    """The first of the columns that is there and not null."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _number(value: Any) -> Any:
    """A number of a .csv, where all is text and an empty cell is none."""
    if value == "":
        return None
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else value


def _line(name: str, result: Mapping[str, Any]) -> str:
    low, high = result["accuracy_interval"]
    low_no, high_no = result["no_answer_interval"]
    return (
        f"{name}: n {result['n']}, accuracy {result['accuracy']:.1%} [{low:.1%}, {high:.1%}], "
        f"no answer {result['no_answer']:.1%} [{low_no:.1%}, {high_no:.1%}]" + _cut_off(result)
    )


def _cut_off(result: Mapping[str, Any]) -> str:
    """What is told of replies that were cut off; "at least" where not every finish is known."""
    if result["truncated"]:
        limit = result["max_tokens"]
        return f", cut off {result['truncated']:.1%}" + (f" at {limit} tokens" if limit else "")
    told = result["truncation"]
    if not told["n"]:
        return ""
    return f", cut off at least {told['share']:.1%} ({told['finish_unknown']} of unknown finish)"
