"""The official metric of instruction tasks with intervals: four accuracies, and their mean.

Its figures are ratios over prompts and over instructions, and over Multi-IF's turns and languages
means of such, each counted once. So problems are drawn again, within each language, and every
figure is computed of each draw (BCa). Wilson's interval stands where it is one sample a problem
that a figure counts, and where a draw says nothing: where a language has a single problem, or all
draws are alike. There n is that of equally sure problems: L^2 / (1/n_1 + ... + 1/n_L) for L
languages of n_1, ... problems. `marco.evaluation.paired` compares two students in the same way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marco.evaluation.metrics import summarise
from marco.evaluation.statistics import ROUNDED, TIED, bca, lots, upper_tail, wilson
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
    counts = Counts.of(samples)
    draws = _Draws(counts, confidence=confidence, resamples=resamples, seed=seed)
    told = figures | draws.intervals(counts.cells)
    parts = {WHOLE: (told, counts.cells)}
    if "turns_and_languages" in figures:
        for part, cells in draws.parts().items():
            told[part] = {
                key: figures[part][key] | draws.intervals(own, pooled=part == "turns_pooled")
                for key, own in cells.items()
            }
        groups = draws.parts()["groups"]
        parts |= {group: (told["groups"][group], groups[group]) for group in groups}
    entries = {}
    for part, (own, cells) in parts.items():
        rows = [row for row in samples if _cell(row) in cells]
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


def is_in(part: str, sample: Sample) -> bool:
    """Whether the entry `<task> <part>` of a task counts a sample of it."""
    return part in (WHOLE, _group(_cell(sample)[1]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """What each problem counts in each cell; problems are known by (language, id)."""

    cells: tuple[Cell, ...]
    problems: tuple[tuple[str, str], ...]
    own: Floats  # [problems, cells, COUNTS]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Counts":
        """The counts of graded samples (`id`, `turn`, `group`, `details`), all tries together."""
        cells = sorted({_cell(sample) for sample in samples})
        problems = sorted({_problem(sample) for sample in samples})
        place, at = ({key: i for i, key in enumerate(keys)} for keys in (problems, cells))
        own = np.zeros((len(problems), len(cells), COUNTS))
        for sample in samples:
            own[place[_problem(sample)], at[_cell(sample)]] += _counts(sample)
        return cls(cells=tuple(cells), problems=tuple(problems), own=own)

    @property
    def languages(self) -> NDArray[np.str_]:
        """The language of each problem."""
        return np.array([language for language, _ in self.problems])

    @property
    def official(self) -> float:
        """The mean of the four accuracies over the cells, in 0..1."""
        return float(accuracies_of(self.own.sum(axis=0))[-1])

    def asks_as(self, other: "Counts") -> bool:
        """Whether the problems of both have the same instructions, turns and languages."""
        if (self.cells, self.problems) != (other.cells, other.problems):
            return False
        asked, by_other = (
            counts.own[..., INSTRUCTIONS] / np.maximum(counts.own[..., PROMPTS], 1)
            for counts in (self, other)
        )
        return np.array_equal(asked, by_other)


class _Draws:
    """The figures of problems drawn again."""

    def __init__(self, counts: Counts, *, confidence: float, resamples: int, seed: int) -> None:
        self.cells, self.own, self.languages = counts.cells, counts.own, counts.languages
        self.confidence, self.resamples = confidence, resamples
        self.rng = np.random.default_rng(seed)
        self.total = self.own.sum(axis=0)

    def parts(self) -> dict[str, dict[str, list[Cell]]]:
        """The cells of each figure, by the names of `by_turn_and_language`."""
        keys = {
            "groups": lambda turn, language: _group(language),
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
        sure = n if pooled else equally_sure(self.languages[there > 0])
        estimates = accuracies_of(self.total[at], pooled=pooled)
        values = accuracies_of(self._drawn[:, at], pooled=pooled)
        left_out = accuracies_of(self.total[at] - self.own[:, at], pooled=pooled)
        told: Figures = {"n": n}
        for i, name in enumerate(NAMES):
            estimate, bounds = float(estimates[i]), None
            if min(sizes.values()) > 1 and not (is_share and name.startswith("prompt")):
                bounds = bca_of(
                    values[:, i],
                    left_out[:, i],
                    estimate,
                    languages=self.languages,
                    confidence=self.confidence,
                )
            kind = "wilson" if bounds is None else "bootstrap"
            bounds = bounds or wilson(estimate * sure, sure, confidence=self.confidence)
            told |= {f"{name}_interval": list(bounds), f"{name}_kind": kind}
        return told

    @cached_property
    def _drawn(self) -> Floats:
        return draw(self.own, self.languages, resamples=self.resamples, rng=self.rng)


def draw(
    own: Floats, languages: NDArray[np.str_], *, resamples: int, rng: np.random.Generator
) -> Floats:
    """The sums of `own` [problems, ...] over problems drawn again: [resamples, ...].

    Problems are drawn within their language, as many as it has.
    """
    flat = own.reshape(len(own), -1)
    drawn = np.zeros((resamples, flat.shape[1]))
    for name in sorted(set(languages.tolist())):
        rows = flat[languages == name]
        there, n = rows.any(axis=0), len(rows)  # the language's own cells, and problems
        for draws in lots(resamples, n):
            chosen = rng.integers(n, size=(len(draws), n)) + n * np.arange(len(draws))[:, None]
            times = np.bincount(chosen.ravel(), minlength=chosen.size).reshape(chosen.shape)
            drawn[draws.start : draws.stop, there] += times @ rows[:, there]
    return drawn.reshape(resamples, *own.shape[1:])


def bca_of(
    values: Floats,
    left_out: Floats,
    estimate: float,
    *,
    languages: NDArray[np.str_],
    confidence: float,
) -> tuple[float, float] | None:
    """BCa interval of a figure from its drawn `values`; None where they all are alike.

    `left_out` is the figure with each problem left out, in the order of `languages`.
    """
    values = values[~np.isnan(values)]
    if np.ptp(values) < TIED:
        return None
    squares = cubes = 0.0
    for name in set(languages.tolist()):
        own = left_out[languages == name]
        own = own[~np.isnan(own)]
        influences = (own.mean() - own) * (len(own) - 1) / len(own) if len(own) else own
        squares += float((influences**2).sum())
        cubes += float((influences**3).sum())
    skew = cubes / squares**1.5 / 6 if squares else 0.0
    return bca(values, estimate, skew=skew, tail=upper_tail(confidence))


def equally_sure(languages: NDArray[np.str_]) -> int:
    """How many problems of one language are as sure as problems of these, each counted once."""
    sizes = Counter(languages.tolist()).values()
    return int(len(sizes) ** 2 / sum(1 / size for size in sizes) + ROUNDED)


def _cell(sample: Sample) -> Cell:
    return str(sample.get("turn") or 1), str(sample.get("group") or "unknown")


def _problem(sample: Sample) -> tuple[str, str]:
    return _cell(sample)[1], str(sample["id"])


def _group(language: str) -> str:
    return GROUPS.get(language, OTHER)


def _counts(sample: Sample) -> list[int]:
    strict, loose = sample["details"]["strict"], sample["details"]["loose"]
    return [1, all(strict), all(loose), len(strict), sum(strict), sum(loose)]


def accuracies_of(counts: Floats, *, pooled: bool = False) -> Floats:
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
