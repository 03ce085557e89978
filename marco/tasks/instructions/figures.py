"""IFEval's four accuracies of graded samples, and their means over Multi-IF's turns and languages.

Shares in 0..1. A prompt is followed where all its instructions are; instructions are counted over
all prompts together. `official` is the mean of the four. Several tries at a problem count alike.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

Sample = Mapping[str, Any]
Accuracies = dict[str, float]
Cells = Mapping[tuple[str, str], Accuracies]

GROUPS = {"Chinese": "zh", "English": "en"}
OTHER = "other"
COUNTS = ("prompts", "instructions")


def accuracies(samples: Sequence[Sample]) -> Accuracies:
    """The four accuracies, their mean, and how many prompts and instructions they are of."""
    told: Accuracies = {}
    for level in ("strict", "loose"):
        verdicts = [sample["details"][level] for sample in samples]
        told[f"prompt_{level}"] = fmean(map(all, verdicts))
        told[f"instruction_{level}"] = fmean(one for verdict in verdicts for one in verdict)
    told["official"] = fmean(told.values())
    told["prompts"] = len(samples)
    told["instructions"] = sum(len(sample["details"]["strict"]) for sample in samples)
    return told


def by_turn_and_language(samples: Sequence[Sample]) -> dict[str, Any]:
    """The accuracies of each turn in each language, and their plain means over those.

    The means over all of them; `turns`, over the languages of a turn; `languages`, over the turns
    of a language; `groups`, over the turns and languages of `zh`, `en` and `other`.
    `turns_pooled` is no mean but a turn's samples of all languages together, what the official
    script calls `all_languages`.
    """
    cells = {
        (turn, language): accuracies(own)
        for turn, of_turn in _parts(samples, _turn).items()
        for language, own in _parts(of_turn, _language).items()
    }
    return {
        **_mean(cells.values()),
        "groups": _means(cells, lambda turn, language: GROUPS.get(language, OTHER)),
        "turns": _means(cells, lambda turn, language: turn),
        "languages": _means(cells, lambda turn, language: language),
        "turns_and_languages": {
            f"{turn}/{language}": cell for (turn, language), cell in cells.items()
        },
        "turns_pooled": {turn: accuracies(own) for turn, own in _parts(samples, _turn).items()},
    }


def _means(cells: Cells, name: Callable[[str, str], str]) -> dict[str, Accuracies]:
    parts: dict[str, list[Accuracies]] = {}
    for key, cell in cells.items():
        parts.setdefault(name(*key), []).append(cell)
    return {part: _mean(own) for part, own in sorted(parts.items())}


def _mean(cells: Iterable[Accuracies]) -> Accuracies:
    """The mean of each accuracy; of prompts and instructions the sum."""
    rows = list(cells)
    return {
        name: sum(row[name] for row in rows) if name in COUNTS else fmean(row[name] for row in rows)
        for name in rows[0]
    }


def _parts(samples: Sequence[Sample], name: Callable[[Sample], str]) -> dict[str, list[Sample]]:
    parts: dict[str, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(name(sample), []).append(sample)
    return dict(sorted(parts.items()))


def _turn(sample: Sample) -> str:
    return str(sample.get("turn") or 1)


def _language(sample: Sample) -> str:
    return str(sample.get("group") or "unknown")
