"""The official metric of instruction tasks with intervals: four accuracies, and their mean.

Its figures are ratios over prompts and over instructions, and over Multi-IF's turns and languages
means of such, each counted once. So problems are drawn again, within each language, and every
figure is computed of each draw (BCa). Wilson's interval stands where it is one sample a problem
that a figure counts, and where a draw says nothing: where a language has a single problem, or all
draws are alike. There n is that of equally sure problems: L^2 / (1/n_1 + ... + 1/n_L) for L
languages of n_1, ... problems.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marco.evaluation.metrics import summarise
from marco.evaluation.statistics import TIED, bca, upper_tail, wilson
from marco.tasks.instructions.figures import GROUPS, OTHER

Sample = Mapping[str, Any]
Figures = dict[str, Any]
Floats = NDArray[np.float64]
Cell = tuple[str, str]  # turn and language
# Of a cell: prompts, followed strictly, loosely; instructions, followed strictly, loosely.
PROMPTS, INSTRUCTIONS = 0, 3
COUNTS = 6
RATIOS = {
    "prompt_strict": (1, PROMPTS),
    "instruction_strict": (4, INSTRUCTIONS),
    "prompt_loose": (2, PROMPTS),
    "instruction_loose": (5, INSTRUCTIONS),
}
NAMES = (*RATIOS, "official")
WHOLE = "official"  # of an entry: all turns and languages
# Of a task's figures, those that do not depend on what counts as followed.
KEPT = (
    "confidence", "n", "n_samples", "counted", "no_answer", "no_answer_interval", "no_answer_kind",
    "truncated", "truncated_interval", "truncated_kind", "truncated_no_answer",
    "truncated_no_answer_interval", "truncated_no_answer_kind", "truncation", "flagged",
    "tokens_mean", "tokens_mean_interval", "error_classes",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Official:
    """A task's own figures with n and intervals, and `entries` in the form of a task's figures.

    An entry's `accuracy` is the official one (`metric` says so), of all (`<task> official`) or of a
    group of languages (`<task> zh`, `en`, `other`); its other figures are shares of samples.
    """

    figures: Figures
    entries: dict[str, Figures] = field(default_factory=dict)


def official_scores(
    name: str,
    figures: Figures,
    samples: Sequence[Sample],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Official:
    """The own `figures` of the task `name`, told with intervals where they are official ones.

    `figures` are those of `instructions.figures.accuracies` or `by_turn_and_language`, of the
    graded `samples` (`id`, `turn`, `group`, `details`). Others are given back as they are.
    """
    if "official" not in figures:
        return Official(figures=figures)
    by_cell = "turns_and_languages" in figures
    draws = _Draws(samples, by_cell=by_cell, confidence=confidence, resamples=resamples, seed=seed)
    told = figures | draws.intervals(draws.cells)
    parts = {WHOLE: (told, draws.cells)}
    if by_cell:
        for part, cells in draws.parts().items():
            told[part] = {
                key: figures[part][key] | draws.intervals(own, pooled=part == "turns_pooled")
                for key, own in cells.items()
            }
        groups = draws.parts()["groups"]
        parts |= {group: (told["groups"][group], groups[group]) for group in groups}
    entries = {}
    for part, (own, cells) in parts.items():
        rows = [row for row in samples if draws.cell_of(row) in cells]
        settings: Any = {"confidence": confidence, "resamples": resamples, "seed": seed}
        shares = summarise(rows, test_at=[], majority=False, **settings)
        entries[f"{name} {part}"] = {
            "metric": "official",
            **{key: shares[key] for key in KEPT},
            "accuracy": own["official"],
            "accuracy_interval": own["official_interval"],
            "accuracy_kind": own["official_kind"],
            "intervals": own["official_kind"],
            "seconds": None,
        }
    return Official(figures=told, entries=entries)


class _Draws:
    """What each problem counts in each cell, and the same of problems drawn again."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        by_cell: bool,
        confidence: float,
        resamples: int,
        seed: int,
    ) -> None:
        self.by_cell, self.confidence, self.resamples = by_cell, confidence, resamples
        self.rng = np.random.default_rng(seed)
        self.cells = sorted({self.cell_of(sample) for sample in samples})
        place = {cell: i for i, cell in enumerate(self.cells)}
        problems: dict[tuple[str, Any], Floats] = {}
        for sample in samples:
            turn, language = cell = self.cell_of(sample)
            blank = np.zeros((len(self.cells), COUNTS))
            own = problems.setdefault((language, sample["id"]), blank)
            own[place[cell]] += _counts(sample)
        self.languages = np.array([language for language, _ in problems])
        self.own = np.stack(list(problems.values()))  # [problems, cells, COUNTS]
        self.total = self.own.sum(axis=0)

    def cell_of(self, sample: Sample) -> Cell:
        if not self.by_cell:
            return "1", "all"
        return str(sample.get("turn") or 1), str(sample.get("group") or "unknown")

    def parts(self) -> dict[str, dict[str, list[Cell]]]:
        """The cells of each figure, by the names of `by_turn_and_language`."""
        keys = {
            "groups": lambda turn, language: GROUPS.get(language, OTHER),
            "turns": lambda turn, language: turn,
            "languages": lambda turn, language: language,
            "turns_and_languages": lambda turn, language: f"{turn}/{language}",
            "turns_pooled": lambda turn, language: turn,
        }
        found: dict[str, dict[str, list[Cell]]] = {part: {} for part in keys}
        for part, key in keys.items():
            for cell in self.cells:
                found[part].setdefault(key(*cell), []).append(cell)
        return found

    def intervals(self, cells: Sequence[Cell], *, pooled: bool = False) -> Figures:
        """n, and for each accuracy over the cells its interval and its kind.

        Over several cells the mean of theirs; where they are `pooled`, of their samples together.
        """
        at = [self.cells.index(cell) for cell in cells]
        there = self.own[:, at, PROMPTS].sum(axis=1)
        n, sizes = int((there > 0).sum()), Counter(self.languages[there > 0].tolist())
        is_share = (pooled or len(at) == 1) and there.max() == 1
        # Equally sure problems of all languages together.
        sure = n if pooled else int(len(sizes) ** 2 / sum(1 / size for size in sizes.values()))
        estimates = _accuracies(self.total[at], pooled=pooled)
        values = _accuracies(self._drawn[:, at], pooled=pooled)
        left_out = _accuracies(self.total[at] - self.own[:, at], pooled=pooled)
        told: Figures = {"n": n}
        for i, name in enumerate(NAMES):
            estimate, bounds = float(estimates[i]), None
            if min(sizes.values()) > 1 and not (is_share and name.startswith("prompt")):
                bounds = self._bca(values[:, i], left_out[:, i], estimate)
            kind = "wilson" if bounds is None else "bootstrap"
            bounds = bounds or wilson(estimate * sure, sure, confidence=self.confidence)
            told |= {f"{name}_interval": list(bounds), f"{name}_kind": kind}
        return told

    def _bca(self, values: Floats, left_out: Floats, estimate: float) -> tuple[float, float] | None:
        """Of a figure's drawn `values`, and those with each problem left out; None if all alike."""
        values = values[~np.isnan(values)]
        if np.ptp(values) < TIED:
            return None
        squares = cubes = 0.0
        for name in set(self.languages.tolist()):
            own = left_out[self.languages == name]
            own = own[~np.isnan(own)]
            influences = (own.mean() - own) * (len(own) - 1) / len(own) if len(own) else own
            squares += float((influences**2).sum())
            cubes += float((influences**3).sum())
        skew = cubes / squares**1.5 / 6 if squares else 0.0
        return bca(values, estimate, skew=skew, tail=upper_tail(self.confidence))

    @cached_property
    def _drawn(self) -> Floats:
        """What each draw of problems counts in each cell: [resamples, cells, COUNTS]."""
        drawn = np.zeros((self.resamples, len(self.cells), COUNTS))
        for name in sorted(set(self.languages.tolist())):
            own = self.own[self.languages == name]
            # Problems that count alike are drawn together: how many of a kind come is multinomial.
            kinds, times = np.unique(own.reshape(len(own), -1), axis=0, return_counts=True)
            weights = self.rng.multinomial(len(own), times / len(own), size=self.resamples)
            drawn += (weights @ kinds).reshape(drawn.shape)
        return drawn


def _counts(sample: Sample) -> list[int]:
    strict, loose = sample["details"]["strict"], sample["details"]["loose"]
    return [1, all(strict), all(loose), len(strict), sum(strict), sum(loose)]


def _accuracies(counts: Floats, *, pooled: bool) -> Floats:
    """NAMES of counts [..., cells, COUNTS] over the cells: [..., 5]; nan where nothing is there."""
    if pooled:
        counts = counts.sum(axis=-2, keepdims=True)
    there = counts[..., PROMPTS] > 0
    found = []
    for hits, of in RATIOS.values():
        ratios = counts[..., hits] / np.where(there, counts[..., of], 1)
        cells = there.sum(axis=-1)
        mean = np.where(there, ratios, 0).sum(axis=-1) / np.where(cells > 0, cells, 1)
        found.append(np.where(cells > 0, mean, np.nan))
    return np.stack([*found, np.mean(found, axis=0)], axis=-1)
