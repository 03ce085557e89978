"""What the trees behind a table's rows have yielded, and what they cost."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marco.errors import UserError
from marco.evaluation.statistics import wilson
from marco.reporting.samples import RESAMPLES, SEED
from marco.search.tree import Tree, read_trees
from marco.stages import MANIFEST, read_manifest
from marco.tasks.verdict import CORRECT, WRONG


@dataclass(frozen=True, kw_only=True)
class TreeCounts:
    """One tree: its distinct correct chains, its wrong ones, those of them whose answer another
    wrong chain of the tree gave before, and the tokens that were generated for it.
    """

    correct: int
    wrong: int
    repeated: int
    tokens: int

    @classmethod
    def of(cls, tree: Tree) -> "TreeCounts":
        ends = [node for node in tree.nodes if node.verdict in (CORRECT, WRONG)]
        right = {tuple(n.text for n in tree.path(e.id)) for e in ends if e.verdict == CORRECT}
        answers = Counter(node.answer for node in ends if node.verdict == WRONG)
        return cls(
            correct=len(right),
            wrong=answers.total(),
            repeated=answers.total() - len(answers),
            tokens=tree.usage["completion_tokens"],
        )


def trees_behind(scores: Path) -> Path | None:
    """The folder of the trees that a scores stage stands on, by its manifests; None without."""
    folders = [scores]
    while folders:
        folder = folders.pop()
        if (folder / "trees.jsonl").is_file():
            return folder
        if (folder / MANIFEST).is_file():
            folders += [Path(e["path"]) for e in read_manifest(folder)["inputs"].values()]
    return None


def yields(rows: Sequence[tuple[str, Path]], *, confidence: float) -> str:
    """A Markdown table of the trees behind (title, scores folder) of each row; "" if none has any.

    `solved` trees have a correct chain (Wilson interval); correct chains are distinct, and counted
    per 1,000 generated tokens; `repeated` is the share of wrong chains whose answer another of the
    tree gave before. Intervals of ratios are of a bootstrap over trees.
    """
    lines = []
    for title, scores in rows:
        folder = trees_behind(scores)
        if folder is None:
            continue
        counts = [TreeCounts.of(tree) for tree in read_trees(folder)]
        if not counts:
            raise UserError(f"{folder} holds no tree")
        lines.append(f"| {title} | " + " | ".join(_cells(counts, confidence)) + " |")
    if not lines:
        return ""
    heads = ["row", "trees", "solved, %", "correct chains per 1,000 tokens"]
    heads += ["tokens a tree", "repeated errors, %"]
    rule = "|---|" + "---:|" * (len(heads) - 1)
    note = (
        "- Trees: solved with Wilson, ratios with bootstrap intervals over trees "
        f"({confidence:.0%}, {RESAMPLES:,} draws). Repeated errors: wrong chains whose answer "
        "another wrong chain of the tree gave before."
    )
    return "\n".join([f"| {' | '.join(heads)} |", rule, *lines, "", note]) + "\n"


def _cells(trees: Sequence[TreeCounts], confidence: float) -> list[str]:
    solved = sum(tree.correct > 0 for tree in trees)
    low, high = wilson(solved, len(trees), confidence=confidence)
    ratio = _ratio_with_interval
    return [
        str(len(trees)),
        f"{100 * solved / len(trees):.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        ratio(trees, lambda t: t.correct, lambda t: t.tokens / 1000, confidence),
        ratio(trees, lambda t: t.tokens, lambda _: 1, confidence),
        ratio(trees, lambda t: 100 * t.repeated, lambda t: t.wrong, confidence),
    ]


def _ratio_with_interval(
    trees: Sequence[TreeCounts],
    above: Callable[[TreeCounts], float],
    below: Callable[[TreeCounts], float],
    confidence: float,
) -> str:
    """Sum over sum, and the percentiles of as many trees drawn with replacement."""
    parts = np.array([(above(tree), below(tree)) for tree in trees], dtype=float)
    if not parts[:, 1].sum():
        return "–"
    draws = np.random.default_rng(SEED).integers(len(parts), size=(RESAMPLES, len(parts)))
    sums = parts[draws].sum(axis=1)
    ratios = sums[sums[:, 1] > 0]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(ratios[:, 0] / ratios[:, 1], tails)
    value = parts[:, 0].sum() / parts[:, 1].sum()
    digits = max(0, 2 - int(np.floor(np.log10(value)))) if value else 0
    return f"{value:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
