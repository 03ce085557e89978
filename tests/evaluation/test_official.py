"""The official metric: its intervals, its entries in a task's form, and its limits."""

import json
import random
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from marco.evaluation.official import NAMES, official_scores
from marco.evaluation.statistics import pooled_share, wilson
from marco.tasks.instructions.figures import accuracies, by_turn_and_language

Sample = dict[str, Any]
SETTINGS: Any = {"confidence": 0.95, "resamples": 2000, "seed": 0}


def sample(
    id: str, strict: str, *, turn: int = 1, group: str | None = None, loose: str = "", **more
):
    """A graded sample: a letter an instruction, + followed, - not."""
    details = {"strict": [m == "+" for m in strict], "loose": [m == "+" for m in loose or strict]}
    verdict = "correct" if all(details["strict"]) else "wrong"
    return {"id": id, "turn": turn, "group": group, "verdict": verdict, "details": details} | more


def conversations(language: str, n: int, *, chance: float, turns: int = 3) -> list[Sample]:
    draw = random.Random(f"{language}{n}")
    return [
        sample(
            f"{language}{i}",
            "".join("+" if draw.random() < chance else "-" for _ in range(turn + 1)),
            turn=turn,
            group=language,
        )
        for i in range(n)
        for turn in range(1, turns + 1)
    ]


def of(k: float, n: int) -> list[float]:
    return pytest.approx(list(wilson(k, n, confidence=0.95)))


def scored(samples: list[Sample], *, name: str = "multi_if", **changes: Any):
    figures = accuracies(samples) if name == "ifeval" else by_turn_and_language(samples)
    return official_scores(name, dict(figures), samples, **SETTINGS | changes)


def test_prompts_of_one_sample_have_wilsons_interval_and_instructions_are_drawn_by_prompt():
    samples = [sample("a", "++"), sample("b", "+-", loose="++"), sample("c", "-"), sample("d", "+")]
    told = scored(samples, name="ifeval").figures
    assert (told["n"], told["prompt_strict"], told["prompt_loose"]) == (4, 0.5, 0.75)
    assert told["prompt_strict_interval"] == of(2, 4) and told["prompt_loose_interval"] == of(3, 4)
    assert (told["prompt_strict_kind"], told["instruction_strict_kind"]) == ("wilson", "bootstrap")
    # The ratio of followed to all instructions, as any other ratio over problems is drawn.
    rng = np.random.default_rng(0)
    drawn = pooled_share([2, 1, 0, 1], [2, 2, 1, 1], confidence=0.95, resamples=2000, rng=rng)
    assert told["instruction_strict_interval"] == pytest.approx(list(drawn), abs=0.03)
    low, high = told["official_interval"]
    assert low < told["official"] == fmean([0.5, 4 / 6, 0.75, 5 / 6]) < high


def test_tries_of_a_prompt_depend_on_each_other():
    one = [sample(str(i), "+" if i % 2 else "-") for i in range(40)]
    tries = [row | {"try": k} for row in one for k in range(8)]
    told, alone = (scored(rows, name="ifeval").figures for rows in (tries, one))
    assert (told["n"], told["prompt_strict_kind"]) == (40, "bootstrap")
    assert told["prompt_strict_interval"] == pytest.approx(
        alone["prompt_strict_interval"], abs=0.03
    )


def test_every_figure_has_n_and_an_interval_that_holds_it():
    samples = conversations("English", 30, chance=0.8) + conversations("Chinese", 20, chance=0.5)
    samples += conversations("French", 10, chance=0.9, turns=2)
    told = scored(samples).figures
    parts = ("groups", "turns", "languages", "turns_and_languages", "turns_pooled")
    cells = [told, *(cell for part in parts for cell in told[part].values())]
    assert len(cells) == 1 + 3 + 3 + 3 + 8 + 3
    for cell in cells:
        for name in NAMES:
            low, high = cell[f"{name}_interval"]
            assert 0 <= low <= cell[name] <= high <= 1 and low < high
    assert (
        told["n"] == 60 and told["groups"]["other"]["n"] == told["languages"]["French"]["n"] == 10
    )
    assert told["turns"]["3"]["n"] == 50 and told["turns_and_languages"]["2/Chinese"]["n"] == 20
    assert told["turns_and_languages"]["2/Chinese"]["prompt_strict_kind"] == "wilson"
    assert told["turns_pooled"]["1"]["prompt_strict_kind"] == "wilson"
    assert told["turns"]["1"]["prompt_strict_kind"] == "bootstrap"
    assert json.loads(json.dumps(told)) == told


def test_the_interval_covers_in_simulation():
    """Of 100 samples of conversations with a known rate, about 95 intervals hold it."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(100):
        samples = []
        for language, n in (("English", 40), ("Chinese", 25)):
            for i in range(n):
                ease = rng.beta(4, 2)  # of mean 2/3, the same for all turns of a conversation
                for turn in (1, 2):
                    marks = "".join("+" if rng.random() < ease else "-" for _ in range(2))
                    samples.append(sample(f"{language}{i}", marks, turn=turn, group=language))
        # Without the figures of turns and languages, which take most of the time.
        told = official_scores(
            "multi_if", {"official": 0}, samples, **SETTINGS | {"resamples": 400}
        )
        low, high = told.figures["instruction_strict_interval"]
        inside += low <= 2 / 3 <= high
    assert 89 <= inside < 100


def test_where_draws_say_nothing_the_problems_still_bound_the_figure():
    right = [sample(f"{g}{i}", "+", group=g) for g in ("English", "Chinese") for i in range(10)]
    told = scored(right).figures
    assert told["official_interval"] == of(20, 20) and told["official_kind"] == "wilson"
    # 10 and 5 problems of two languages are as sure as 4 / (1/10 + 1/5) = 13 of one.
    fewer = [row for row in right if row["group"] == "English" or row["id"] < "Chinese5"]
    assert scored(fewer).figures["official_interval"] == of(13, 13)
    single = [*conversations("English", 9, chance=0.7), sample("x", "+-", group="Hindi")]
    told = scored(single).figures
    assert told["languages"]["Hindi"]["official_interval"] == of(0.25, 1)
    assert told["official_kind"] == "wilson" and told["languages"]["English"]["n"] == 9


def test_entries_have_the_form_of_a_task():
    samples = conversations("English", 12, chance=0.8) + conversations("Thai", 6, chance=0.4)
    samples[0] |= {"verdict": "no_answer", "tokens": 3}
    found = scored(samples)
    assert list(found.entries) == ["multi_if official", "multi_if en", "multi_if other"]
    entry, group = found.entries["multi_if en"], found.figures["groups"]["en"]
    assert (entry["metric"], entry["n"], entry["n_samples"]) == ("official", 12, 36)
    assert (entry["accuracy"], entry["accuracy_interval"]) == (
        group["official"],
        group["official_interval"],
    )
    assert entry["no_answer"] == 1 / 36 and entry["no_answer_interval"][0] < 1 / 36
    assert found.entries["multi_if official"]["accuracy"] == found.figures["official"]
    assert list(scored([sample("a", "+")], name="ifeval").entries) == ["ifeval official"]


def test_other_tasks_figures_are_left_alone():
    found = official_scores("math", {"levels": 3}, [sample("a", "+")], **SETTINGS)
    assert (found.figures, found.entries) == ({"levels": 3}, {})
