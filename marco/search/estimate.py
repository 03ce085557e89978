"""What the search of all problems would cost, from a sample of them."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marco.evaluation.statistics import mean_with_interval
from marco.progress import duration
from marco.search.grow import grow
from marco.search.tree import Tree, read_trees
from marco.tasks.problem import Problem

FIGURES: Mapping[str, Callable[[Tree], float]] = {
    "requests": lambda tree: tree.usage["requests"],
    "prompt_tokens": lambda tree: tree.usage["prompt_tokens"],
    "generated_tokens": lambda tree: tree.usage["completion_tokens"],
    "solved": lambda tree: tree.status == "solved",
}


def estimate(
    config: Mapping[str, Any],
    task: Mapping[str, Any],
    problems: Sequence[Problem],
    *,
    sample: int,
    confidence: float,
    cluster: Mapping[str, Any],
    run: str,
    out: Path,
    models: Path,
) -> dict[str, Any]:
    """Search `sample` problems, drawn by the search's seed; figures for all, with their intervals.

    Writes and returns `estimate.json`: for each figure its mean over a tree, and the total of all
    problems (mean and t interval); seconds at the sample's tokens/s, which may not have filled the
    engine: likely too many, and null where the journal answered all.
    """
    chance = random.Random(f"{config['search_seed']}/dry run")
    drawn = chance.sample(problems, min(sample, len(problems)))
    rate = grow(config, task, drawn, cluster=cluster, run=run, out=out, models=models)
    trees = list(read_trees(out))
    figures = {}
    for name, of in FIGURES.items():
        mean = mean_with_interval([float(of(tree)) for tree in trees], confidence=confidence)
        total = [len(problems) * max(value, 0.0) for value in (mean.mean, *mean.interval)]
        figures[name] = {
            "per_tree": mean.mean,
            "total": round(total[0]),
            "interval": [round(total[1]), round(total[2])],
        }
    seconds = round(figures["generated_tokens"]["total"] / rate) if rate else None
    figures["seconds"] = {"total": seconds}
    result = {"problems": len(problems), "sample": len(drawn), "confidence": confidence} | figures
    text = json.dumps(result, indent=1)
    (out / "estimate.json").write_text(text + "\n", encoding="utf-8")
    return result


def estimate_lines(folder: Path) -> list[str]:
    """The estimate of a stage's folder, for the terminal."""
    result = json.loads((folder / "estimate.json").read_text(encoding="utf-8"))
    share = f"{result['confidence']:.0%}"
    lines = [f"estimate for {result['problems']:,} problems, from {result['sample']} of them:"]
    for name in FIGURES:
        figure = result[name]
        low, high = figure["interval"]
        lines.append(
            f"  {name.replace('_', ' '):16} {figure['total']:>14,}  {share} [{low:,}, {high:,}]"
            f"  ({figure['per_tree']:,.1f} a tree)"
        )
    seconds, tokens = result["seconds"]["total"], result["generated_tokens"]
    if seconds is None:
        return [*lines, "  time                    unknown: the journal answered all"]
    ends = (round(seconds * end / max(tokens["total"], 1)) for end in tokens["interval"])
    low, high = map(duration, ends)
    return [
        *lines,
        f"  time             {duration(seconds):>14}  {share} [{low}, {high}] "
        "on the engines of this run, at the sample's speed; fuller engines are faster",
    ]
