"""What the trees behind a table's rows have yielded, and what they cost."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marco.errors import UserError
from marco.evaluation.statistics import wilson
from marco.manifest import MANIFEST, read_manifest
from marco.reporting.grid import Estimate, Grid, Value
from marco.reporting.samples import RESAMPLES, SEED
from marco.search.tree import Tree, read_trees
from marco.tasks.verdict import CORRECT, WRONG

TREES = "trees"  # what their figures are called
AT_ONCE = 100  # draws: of a benchmark's 10,000 trees all of them would take 2 GB


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


def tree_grid(rows: Sequence[tuple[str, Path]], *, confidence: float) -> Grid | None:
    """The trees behind (title, scores folder) of each row; None if no row has any.

    `solved` trees have a correct chain (Wilson interval); correct chains are distinct, and counted
    per 1,000 generated tokens; `repeated` is the share of wrong chains whose answer another of the
    tree gave before. Intervals of ratios are of a bootstrap over trees.
    """
    behind = dict.fromkeys((title, trees_behind(scores)) for title, scores in rows)
    lines = []
    for title, folder in behind:  # all seeds of a row stand on the same
        if folder is None:
            continue
        counts = [TreeCounts.of(tree) for tree in read_trees(folder)]
        if not counts:
            raise UserError(f"{folder} holds no tree")
        lines.append((title, *_cells(counts, confidence)))
    if not lines:
        return None
    return Grid(
        name=TREES,
        title="The trees behind the rows",
        heads=(
            *("row", "trees", "solved, %", "correct chains per 1,000 tokens"),
            *("tokens a tree", "repeated errors, %"),
        ),
        rows=tuple(lines),
        notes=(
            "Trees: solved with Wilson, ratios with bootstrap intervals over trees "
            f"({confidence:.0%}, {RESAMPLES:,} draws). Repeated errors: wrong chains whose answer "
            "another wrong chain of the tree gave before.",
        ),
    )


def _cells(trees: Sequence[TreeCounts], confidence: float) -> tuple[Value, ...]:
    solved = sum(tree.correct > 0 for tree in trees)
    low, high = wilson(solved, len(trees), confidence=confidence)
    ratio = _ratio_with_interval
    return (
        len(trees),
        Estimate(value=100 * solved / len(trees), low=100 * low, high=100 * high),
        ratio(trees, lambda t: t.correct, lambda t: t.tokens / 1000, confidence),
        ratio(trees, lambda t: t.tokens, lambda _: 1, confidence),
        ratio(trees, lambda t: 100 * t.repeated, lambda t: t.wrong, confidence),
    )


def _ratio_with_interval(
    trees: Sequence[TreeCounts],
    above: Callable[[TreeCounts], float],
    below: Callable[[TreeCounts], float],
    confidence: float,
) -> Estimate | None:
    """Sum over sum, and the percentiles of as many trees drawn with replacement."""
    parts = np.array([(above(tree), below(tree)) for tree in trees], dtype=float)
    if not parts[:, 1].sum():
        return None
    rng = np.random.default_rng(SEED)
    sums = np.concatenate(
        [
            parts[rng.integers(len(parts), size=(AT_ONCE, len(parts)))].sum(axis=1)
            for _ in range(RESAMPLES // AT_ONCE)
        ]
    )
    ratios = sums[sums[:, 1] > 0]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(ratios[:, 0] / ratios[:, 1], tails)
    value = parts[:, 0].sum() / parts[:, 1].sum()
    return Estimate(value=float(value), low=float(low), high=float(high))
