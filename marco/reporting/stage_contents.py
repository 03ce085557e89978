"""What is logged of a stage, read from its folder: figures, curves, samples, trees, lineage."""

import csv
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from heapq import nsmallest
from pathlib import Path
from statistics import fmean
from typing import Any

from marco.errors import UserError
from marco.evaluation.metrics import class_names
from marco.manifest import CONFIG, MANIFEST, read_manifest
from marco.reporting.allowlist import Redactor
from marco.reporting.loggers.protocol import Artifact
from marco.reporting.results import collect, student_behind
from marco.reporting.rows import RowSpec
from marco.reporting.samples import FILE as SAMPLES
from marco.search.tree import Tree, read_trees
from marco.training.live import Following
from marco.training.pairs_csv import read_pairs
from marco.viewer.export import tree_page

OTHER_AXES = ("validation/", "samples/")  # figures of training that are not of its own batches
COLUMNS = ("task", "id", "turn", "try", "verdict", "error_classes", "finish", "tokens")
TEXTS = ("prompt", "response", "answer", "gold")
# Files of a stage that tell where things lie on this machine, or are of use only to go on from.
LEFT_OUT = {CONFIG, MANIFEST, "journal"}
PLACES = 64  # of a density
TENTHS = 10  # of the pairs, by their difference of lengths
Line = tuple[int, dict[str, float]]  # step, figures
Curve = tuple[str, int, dict[str, float]]  # axis, place on it, metrics


def finished_training(folder: Path) -> Iterator[Line]:
    """The steps of a finished student's training; none for other stages."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            step = int(line.pop("step"))
            yield step, _of_training({name: float(value) for name, value in line.items() if value})


def new_training(following: Following) -> Iterator[Line]:
    """The steps that a training which goes on has told since the last look."""
    return ((step, _of_training(told)) for step, told in following.new())


@cache
def figures(kind: str, folder: Path) -> dict[str, float]:
    """The final figures of a stage, by names joined with `/`."""
    if kind == "scores":
        found = flat(_read(folder / "results.json").get("tasks", {}))
        student = student_behind(folder)
        return found | (flat({"train": _read(student / "metrics.json")}) if student else {})
    if kind == "student":
        return flat({"train": _read(folder / "metrics.json")})
    if kind == "dataset":
        return flat({"dataset": _read(folder / "stats.json")})
    return flat({"trees": _counted(read_trees(folder))}) if kind == "trees" else {}


def curves(kind: str, folder: Path) -> list[Curve]:
    """Curves that have an axis of their own: over tries, tokens, turns, and lengths of pairs."""
    if kind != "scores":
        return []
    found = [*_over_tries_and_turns(folder), *_over_tokens(folder), *_over_lengths(folder)]
    return [curve for curve in found if curve[2]]


def _over_tries_and_turns(folder: Path) -> Iterator[Curve]:
    for task, told in _read(folder / "results.json").get("tasks", {}).items():
        for k, share in told.get("test_at", {}).items():
            yield f"{task}/tries", int(k), _finite({f"{task}/test_at_tries": share["value"]})
        for turn, part in told.get("by_turn", {}).items():
            point = {f"{task}/{name}_at_turn": part[name] for name in ("accuracy", "no_answer")}
            yield f"{task}/turn", int(turn), _finite(point)


def _over_tokens(folder: Path) -> Iterator[Curve]:
    """Test@k by the tokens that k tries take, and how dense lengths lie, of replies that ended.

    None of scores from which no table can be made: what else they tell is logged all the same.
    """
    if not (folder / SAMPLES).is_file():
        return
    # With matplotlib, which takes a while to import.
    from marco.reporting.figures.lengths import density_curve, of_scores
    from marco.reporting.figures.test_at import read_curves

    try:
        results = collect([folder])
        rows = [RowSpec(result.row, result.row) for result in results]
        tries, lengths = read_curves(rows, results)[0], of_scores(rows, results)
    except UserError:
        return
    for curve in tries:
        for tokens, share in zip(curve.tokens, curve.shares, strict=True):
            if tokens is not None:
                point = {f"{curve.task}/test_at_tokens": share.value}
                yield f"{curve.task}/tokens_spent", round(tokens), point
    for one in lengths:
        for tokens, value in density_curve(one, places=PLACES).items():
            yield f"{one.task}/response_tokens", tokens, {f"{one.task}/response_density": value}


def _over_lengths(folder: Path) -> Iterator[Curve]:
    """The mean margin of preference pairs by their difference of lengths, in tenths of them."""
    student = student_behind(folder)
    if student is None:
        return
    try:
        lines = read_pairs(student)
    except UserError:  # what else the scores tell is logged all the same
        return
    pairs = sorted((pair["length_difference_tokens"], pair["margin_nats"]) for pair in lines)
    for i in range(TENTHS):
        part = pairs[i * len(pairs) // TENTHS : (i + 1) * len(pairs) // TENTHS]
        if part:
            difference, margin = (fmean(column) for column in zip(*part, strict=True))
            yield "pairs/length_difference", round(difference), {"pairs/margin": margin}


def samples(folder: Path, *, count: int) -> list[dict[str, Any]]:
    """`count` graded samples of each task: those of the same problems, whoever was evaluated."""
    path = folder / SAMPLES
    if not count or not path.is_file():
        return []
    tasks: dict[str, list[dict[str, Any]]] = {}
    with path.open(encoding="utf-8", errors="surrogatepass") as file:
        for line in file:
            row = json.loads(line)
            own = tasks.setdefault(row["task"], [])
            own.append(row)
            if len(own) > 50 * count:  # responses are long: all of them are never held
                tasks[row["task"]] = nsmallest(count, own, key=_draw)
    chosen = [row for own in tasks.values() for row in nsmallest(count, own, key=_draw)]
    return [
        {name: row.get(name) for name in COLUMNS + TEXTS}
        | {"error_classes": sorted(class_names(row))}
        for row in chosen
    ]


def pages(folder: Path, *, count: int, redact: Redactor) -> dict[str, str]:
    """`count` trees as HTML by their problem's id, always those of the same problems."""
    if not count or not (folder / "trees.jsonl").is_file():
        return {}
    drawn = nsmallest(count, read_trees(folder), key=lambda tree: _hash(tree.id))
    # Before they are escaped: a secret may hold characters that are written otherwise then.
    clean = [Tree.from_json(redact(json.loads(tree.to_json()))) for tree in drawn]
    return {tree.id: tree_page(tree, folder=folder) for tree in clean}


def artifact(name: str, folder: Path, *, inputs: Mapping[str, str], data: bool) -> Artifact:
    """What a finished stage made, as its manifest tells: hashes and keys, but no places.

    `inputs` maps its inputs to their keys. The same folder makes the same artifact, whoever asks.
    With `data` its files go along.
    """
    manifest = read_manifest(folder)
    kind, key = manifest["stage"], manifest["key"]
    told = {
        "stage": kind,
        "key": key,
        "inputs": dict(inputs),
        "versions": manifest["versions"],
        "seconds": manifest["seconds"],
    }
    listed = told | {"files": manifest["files"]}
    texts = {"manifest.json": _text(listed), "figures.json": _text(figures(kind, folder))}
    names = [file for file in manifest["files"] if file.split("/")[0] not in LEFT_OUT]
    paths = {file: folder / file for file in names} if data else {}
    return Artifact(name=name, kind=kind, key=key, metadata=told, files=texts, data=paths)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of nested figures, by names joined with `/`; an interval is two of them.

    Those of a pair end in `_low` and `_high`.
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, list | tuple) and len(value) == 2:
            found |= flat({f"{name}_low": value[0], f"{name}_high": value[1]}, prefix)
        elif isinstance(value, bool | int | float) and math.isfinite(value):
            found[f"{prefix}{name}"] = value
    return found


def _counted(trees: Iterator[Tree]) -> dict[str, Any]:
    status, verdicts, usage = Counter[str](), Counter[str](), Counter[str]()
    count = nodes = 0
    for tree in trees:
        count += 1
        nodes += len(tree.nodes)
        status[tree.status] += 1
        verdicts.update(node.verdict for node in tree.nodes if node.verdict is not None)
        usage.update(tree.usage)
    return {"n": count, "nodes": nodes, "status": status, "chains": verdicts, "usage": usage}


def _of_training(told: Mapping[str, Any]) -> dict[str, float]:
    return _finite({_named(name): value for name, value in told.items()})


def _named(name: str) -> str:
    return name if name.startswith(OTHER_AXES) else f"train/{name}"


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: v for name, v in values.items() if v is not None and math.isfinite(v)}


def _draw(row: Mapping[str, Any]) -> str:
    return _hash([row["task"], row["id"], row.get("turn"), row.get("try")])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
