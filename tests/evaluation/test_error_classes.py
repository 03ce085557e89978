import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from marco.evaluation.ask import Reply
from marco.evaluation.error_classes import (
    ERROR_CLASSES,
    ErrorClassesConfig,
    Finding,
    classes_of_chain,
    classify,
    primary,
)
from marco.evaluation.grade import grade_replies
from marco.evaluation.metrics import summarise
from marco.tasks.answers import THOUGHTS, final_part
from marco.tasks.problem import Problem
from marco.tasks.registry import make_task
from marco.tasks.task import Task
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG

from ..test_config import checked

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
OUTPUTS = DATA / "long_cot_outputs" / "outputs.jsonl.gz"
CALIBRATION = DATA / "calibration" / "extraction.jsonl"
VALUES = yaml.safe_load((ROOT / "conf" / "error_classes" / "default.yaml").read_text("utf-8"))
CONFIG = ErrorClassesConfig(**VALUES)


def findings(response: str, **changes: Any) -> dict[str, Finding]:
    told = {"finish": "stop", "verdict": CORRECT, "simple": False} | changes
    return {f.name: f for f in classify(response, config=CONFIG, **told)}


def classes(response: str, **changes: Any) -> list[str]:
    return list(findings(response, **changes))


# Content repetition


def test_a_loop_that_is_cut_off_within_a_copy() -> None:
    block = "So the sum of both is again not what was asked for. "
    assert len(block) == 52
    loop = findings("We add 3 and 4\n" + block * 6 + block[:20])["content_repetition"]
    assert (loop.start, loop.period) == (15, 52)
    assert loop.evidence == f"6.4 times {block!r}"


def test_a_loop_amid_the_text_counts_too() -> None:
    block = "Let me compute 12 * 12 again; it is 144, as it was before.\n"
    text = "First:\n" + block * 8 + "Thus the answer is 144."
    loop = findings(text)["content_repetition"]
    assert (loop.start, loop.period) == (6, len(block))  # from the line's end before it
    assert "content_repetition" not in classes("First:\n" + block * 4 + "Thus it is 144.")


def test_a_loop_without_sentences() -> None:
    text = r"\[ x = " + r"\frac{1062}{1677} = " * 40
    loop = findings(text)["content_repetition"]
    assert (loop.start, loop.period) == (4, 20)


def numbered(form: str, count: int) -> str:
    return "".join(form.format(n=n, square=n * n) for n in range(1, count + 1))


def test_a_search_case_by_case_that_does_not_end_is_a_near_loop() -> None:
    case = "For n = {n}, the square is {square}, which 361 does not divide.\n"
    loop = findings("We try them.\n" + numbered(case, 40) + "For n = 41, the")["content_repetition"]
    assert (loop.start, loop.period) == (13, 58)  # the mean of 55 to 59
    assert loop.evidence == "40 sentences, 100% nearly as 1 before"  # all but the one cut off


def test_a_list_that_ends_is_no_loop_before_it_is_long() -> None:
    case = "For n = {n}, the square is {square}, which 361 does not divide.\n"
    end = "None of them is divided by it.\nThus there is no such number.\n"
    assert classes(numbered(case, 90) + end) == []
    assert classes(numbered(case, 110) + end) == ["content_repetition"]


def test_a_changed_word_and_a_changed_letter_are_near_loops() -> None:
    things = ("apple", "pear", "plum", "fig", "date", "lime", "quince", "cherry") * 4
    word = [f"Let us now look at the {thing} once more, and count it again." for thing in things]
    assert classes("\n".join(word)) == ["content_repetition"]
    letter = [f"The side {a} is twice the side {b}." for a in "pqrstuv" for b in "abcdef"]
    assert classes("\n".join(letter)) == ["content_repetition"]


NO_LOOPS = {
    "a table": "| n | n^2 | odd |\n|---|---|---|\n" + numbered("| {n} | {square} | yes |\n", 20),
    "a rule": "Above.\n" + "-" * 120 + "\nBelow.",
    "a matrix": r"\begin{pmatrix} 1 & 0 & 0 \\ 0 & 1 & 0 \\ 0 & 0 & 1 \end{pmatrix}" + " It is I.",
    "a decimal": "1/3 is 0." + "3" * 200 + " and so on.",
    "a list": numbered("{n}. The square of {n} is {square}.\n", 25) + "The last one is 625.",
    "one formula thrice": r"\[ \frac{a + b}{c} = \frac{d}{e} \]" * 3 + " So a + b = cd / e.",
    "a sum": "We add: " + " + ".join(["5"] * 40) + " = 200.",
    "a derivation": "".join(
        rf"\[ {n}x + {n + 3} = {7 * n} \implies {n}x = {6 * n - 3} \]" + "\nNow we divide.\n"
        for n in range(2, 12)
    )
    + "So x is found.",
    "code": "for i in range(3):\n    total += i\n    print(total)\n" * 2 + "It prints 0, 1, 3.",
    "an empty line after each": "One.\n\n\n\nTwo.\n\n\n\nThree.\n\n\n\n",
    "an answer": "The answer is 42.",
    "nothing": "",
}


@pytest.mark.parametrize("name", NO_LOOPS)
def test_what_is_repeated_in_good_text_is_no_loop(name: str) -> None:
    assert classes(NO_LOOPS[name]) == []


# Over-reflection


def plain(count: int) -> list[str]:
    words = ("we add", "we take", "now put", "then write", "so drop", "next keep", "here hold")
    return [f"{words[n % 7]} number {n * 37 + 1000} to {words[n % 5]} it." for n in range(count)]


def test_reflection_by_its_rate() -> None:
    doubts = [f"Wait, {n * 13 + 5000} may be wrong." for n in range(10)]
    found = findings("\n".join(plain(40) + doubts))["over_reflection"]  # 10 of 50: 20 in 100
    assert found.start == len("\n".join(plain(40))) + 1
    assert found.evidence == "10 of 50 sentences reflect, 0 in a row find nothing new"
    assert classes("\n".join(plain(41) + doubts)) == []
    assert classes("\n".join(plain(3) + doubts[:9])) == []  # too few to tell a rate


def test_reflection_by_a_run_without_a_new_result() -> None:
    doubts = ["Wait, is 7 right?", "It may be.", "But that is odd."] * 20
    text = "\n".join(["It is 7.", *plain(60), *doubts])
    found = findings(text)["over_reflection"]  # 20 of 121
    assert found.start == text.index("Wait")
    assert found.evidence == "20 of 121 sentences reflect, 20 in a row find nothing new"


@pytest.mark.parametrize("result", ["It is 8 then.", "So x = y.", "Then 9/4 remains."])
def test_a_new_result_ends_the_run(result: str) -> None:
    words = ("this", "that", "here", "there", "now", "then", "once", "twice", "thus", "so")
    doubts = [
        f"Alternatively, {a} may be {b}.\nBut it is {b}." for a in words[:4] for b in words[5:]
    ]
    before = ["It is 7.", *plain(70)]
    assert classes("\n".join(before + doubts)) == ["over_reflection"]
    assert classes("\n".join([*before, *doubts[:10], result, *doubts[10:]])) == []
    seen = [*before, result, *doubts[:10], result, *doubts[10:]]
    assert "over_reflection" in classes("\n".join(seen))


@pytest.mark.parametrize(
    "opener",
    ["Wait, no.", "wait: is it?", "But wait.", "**Hmm**, odd.", "- Alternatively, we add.",
     "Let me double-check this.", "Let’s verify it.", "等等，这不对。", "另外，可以这样。"],
)  # fmt: skip
def test_openers_stand_at_the_start_of_a_sentence(opener: str) -> None:
    many = [f"{opener} {n * 17 + 3000}" for n in range(12)]
    assert "over_reflection" in classes("\n".join(many))
    assert "over_reflection" not in classes("\n".join(f"We said: {line}" for line in many))
    assert "over_reflection" not in classes("\n".join(f"Waiter {line.lower()}" for line in many))


def test_the_prefixes_of_reflecting_nodes_are_openers() -> None:
    kinds = yaml.safe_load((ROOT / "conf" / "kinds" / "paper.yaml").read_text("utf-8"))
    for name in ("reflection", "double_check", "reclarify"):
        [prefix], tag = kinds[name]["prefixes"], kinds[name]["tag"]
        chain = "".join(f"<{tag}>{prefix} {n * 7 + 90}.</{tag}>" for n in range(10))
        assert "over_reflection" in classes(chain), name


def test_a_short_chain_with_some_doubts_is_right_as_it_is() -> None:
    chain = (
        "<sub-task>First the pens in boxes, then all.</sub-task><thinking>7 * 6 = 41.</thinking>"
        "<reflection>Let's check the result. Wait! something is wrong... 7 * 6 = 42.</reflection>"
        "<thinking>42 + 4 = 46.</thinking><double-check>Now, I need to check whether all "
        "requirements are met. 46 - 4 = 42, and 42 = 7 * 6.</double-check><answer>46</answer>"
    )
    assert classes(chain) == []
    assert classes_of_chain(chain, config=CONFIG) == ()


# Instruction failure and truncation

THOUGHT = (
    "Okay, the user wants two words in French. Let me think about the register first. "
    "Maybe I should look at where the words come from, and how they were used of old."
)


def test_a_long_thought_where_the_answer_alone_was_asked_for() -> None:
    found = findings(THOUGHT, verdict=NO_ANSWER, simple=True, finish="length")
    assert found["instruction_failure"].start == 0
    assert list(found) == ["instruction_failure", "truncation"]
    tagged = "Well. <think>" + "The words are old ones. " * 6
    assert findings(tagged, verdict=NO_ANSWER, simple=True)["instruction_failure"].start == 6
    for verdict in (CORRECT, WRONG):  # it has answered
        assert classes(THOUGHT, verdict=verdict, simple=True) == []
    assert classes(THOUGHT[:80], verdict=NO_ANSWER, simple=True) == []  # no long one
    wordy = "Bonjour is what one says in the morning, and salut is what one says to friends. " * 2
    assert classes(wordy, verdict=NO_ANSWER, simple=True) == []  # no thought


def test_thoughts_with_an_answer_after_them_are_no_failure() -> None:
    """The paper's class is long thinking on a simple task *and* no final answer."""
    thought = f"<think>{THOUGHT}</think>"
    for verdict in (CORRECT, WRONG):
        assert classes(f"{thought}Bonjour et salut.", verdict=verdict, simple=True) == []
    assert classes(thought, verdict=NO_ANSWER, simple=True) == ["instruction_failure"]


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS)
def test_thoughts_are_known_by_the_tags_that_the_graders_know(opening: str, closing: str) -> None:
    said = "The words are old ones. " * 6
    assert classes(f"{opening}{said}{closing}", verdict=NO_ANSWER) == ["instruction_failure"]
    assert classes(f"{opening}{said}", verdict=NO_ANSWER, finish=None) == ["truncation"]


def test_a_thought_that_ends_without_an_answer() -> None:
    assert classes(THOUGHT, verdict=NO_ANSWER) == ["instruction_failure"]
    assert classes(THOUGHT, verdict=NO_ANSWER, finish=None) == ["instruction_failure"]
    assert classes(THOUGHT, verdict=NO_ANSWER, finish="length") == ["truncation"]
    assert classes("[PLAN]\n[PLAN END]", verdict=NO_ANSWER) == []
    assert classes("", verdict=NO_ANSWER, simple=True) == []


def test_truncation_where_the_finish_is_not_known() -> None:
    assert findings("<think>So 7", finish=None)["truncation"].evidence == "<think> is left open"
    assert classes("<think>So 7</think> It is 7.", finish=None) == []
    assert classes("<think>a</think><think>b", finish=None) == ["truncation"]
    assert classes("<think>So 7", finish="stop") == []
    assert findings("It is", finish="length")["truncation"].start == 5


def test_the_primary_class() -> None:
    def of(*names: Any) -> str | None:
        return primary(Finding(name=name, start=0, evidence="") for name in names)

    assert of() is None
    assert of("truncation") is None
    assert of("over_reflection", "truncation") == "over_reflection"
    assert of("over_reflection", "instruction_failure") == "instruction_failure"
    assert of(*reversed(ERROR_CLASSES)) == "content_repetition"


def test_the_classes_of_a_chain_to_learn_from() -> None:
    def of(text: str) -> tuple[str, ...]:
        return classes_of_chain(text, config=CONFIG)

    assert of("<think>Seven.</think> It is 7.") == ()
    assert of(f"<think>{THOUGHT}</think>") == ("instruction_failure",)
    assert of(f"<|begin_of_thought|>{THOUGHT}") == ("truncation",)
    assert of("No, it is not. " * 30) == ("content_repetition",)


# Any text

texts = st.text(max_size=200) | st.text("Wait, \n.<>/|=$\\09等。\ud800", max_size=200)


@given(texts, st.sampled_from(["stop", "length", None]), st.booleans())
def test_any_text_is_classified(text: str, finish: str | None, simple: bool) -> None:
    found = classify(text, finish=finish, verdict=NO_ANSWER, simple=simple, config=CONFIG)
    names = [finding.name for finding in found]
    assert names == [name for name in ERROR_CLASSES if name in names]
    assert all(0 <= finding.start <= len(text) for finding in found)
    assert ("truncation" in names) >= (finish == "length")
    assert all((f.period is not None) == (f.name == "content_repetition") for f in found)


@settings(max_examples=50)
@given(st.text(max_size=50), st.text(min_size=1, max_size=120), st.text(max_size=50))
def test_a_loop_is_found_whatever_is_around_it(before: str, block: str, after: str) -> None:
    copies = max(3, -(-300 // len(block)))
    loop = findings(before + block * copies + after)["content_repetition"]
    assert loop.start <= len(before) + len(block)
    assert loop.period is not None and loop.period <= len(block)


MB = 1_000_000
HOSTILE = {
    "one letter": "a" * MB,
    "digits": "7" * MB,
    "newlines": "\n" * 100_000,
    "surrogates": "\ud800" * MB,
    "control characters": "\x00\x1b" * (MB // 2),
    "open brackets": "<" * MB,
    "short sentences": "a. " * (MB // 3),
    "tags": "<b>" * (MB // 3),
    "openers": "Wait, " * (MB // 6),
    "sentences that reflect": "Wait. " * (MB // 6),
    "spaces": " " * MB,
    "equals signs": "=" * MB,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_classified(name: str) -> None:
    found = findings(HOSTILE[name], verdict=NO_ANSWER, simple=True, finish=None)
    assert found["content_repetition"].period is not None


# The thresholds


def test_every_threshold_stands_in_the_file() -> None:
    assert set(VALUES) == set(ErrorClassesConfig.model_fields)
    for section, values in VALUES.items():
        for key in values:
            less = {k: v for k, v in values.items() if k != key}
            with pytest.raises(ValidationError, match=key):
                ErrorClassesConfig(**{**VALUES, section: less})
        with pytest.raises(ValidationError, match="Extra inputs"):
            ErrorClassesConfig(**{**VALUES, section: {**values, "more": 1}})


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("exact_loop", "repeats", 2), ("near_loop", "agreement", 1.0), ("reflection", "openers", [])],
)
def test_thresholds_that_make_no_sense_are_refused(section: str, key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        ErrorClassesConfig(**{**VALUES, section: {**VALUES[section], key: value}})


# Real outputs


GOLDS = {
    "gsm8k": "18",
    "math": "5",
    "multi_if": '[{"id": "punctuation:no_comma", "kwargs": {}}]',
}


def problem_of(task: Task) -> Problem:
    if task.name == "blocksworld":
        with (DATA / "blocksworld" / "instances.jsonl").open(encoding="utf-8") as file:
            return task.parse(json.loads(next(file)), 1, "instances.jsonl")
    return Problem(id="a", problem="?", answer=GOLDS[task.name])


@pytest.mark.skipif(not CALIBRATION.is_file(), reason="the data are not beside the repository")
@pytest.mark.parametrize(
    "row",
    [json.loads(line) for line in CALIBRATION.read_text("utf-8").splitlines()]
    if CALIBRATION.is_file()
    else [],
    ids=lambda row: row["id"],
)
def test_the_calibration_set_from_output_to_verdict_and_class(row: dict[str, Any]) -> None:
    name = row["benchmark"].removesuffix("500")
    task = make_task(checked(f"task={name}", name="evaluate").task)
    reply = Reply(text=row["output"], finish=row["finish_reason"], tokens=None)
    [graded] = grade_replies(task, [problem_of(task)], [[reply]], CONFIG)
    assert (graded["verdict"] == NO_ANSWER) == row["expected_no_answer"]
    assert graded["error_class"] == row["expected_error_class"]
    if not row["expected_no_answer"]:
        assert graded["answer"].strip() == row["expected_answer"].replace(",", "")


@pytest.mark.skipif(not OUTPUTS.is_file(), reason="the data are not beside the repository")
def test_the_shares_of_real_outputs() -> None:
    """The figures of docs/error_classes.md, with some slack."""
    counts: Counter[tuple[str, str]] = Counter()
    verdicts: Counter[str] = Counter()
    samples = []
    with gzip.open(OUTPUTS, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            text = row["output"]
            answered = "\\boxed" in final_part(text)
            verdict = CORRECT if row["source_correct"] else WRONG
            verdict = verdict if answered else NO_ANSWER
            verdicts[verdict] += 1
            names = list(findings(text, verdict=verdict, finish=None))
            counts.update((verdict, name) for name in names)
            id = f"{row['source_model']}/{row['benchmark']}/{row['idx']}"
            samples.append({"id": id, "verdict": verdict, "error_classes": names})
    assert verdicts.total() == 820
    silent = {name: counts[NO_ANSWER, name] for name in ERROR_CLASSES}
    assert silent["truncation"] == 53  # every thought that was left open
    settings: Any = {"confidence": 0.95, "resamples": 100, "seed": 0}
    told = summarise(samples, test_at=[], majority=False, **settings)
    assert (told["truncated"], told["truncation"]["finish_unknown"]) == (None, 820)
    assert told["truncation"]["n"] == 53 and told["truncation"]["share"] == 53 / 820
    assert 58 <= silent["content_repetition"] <= 66
    assert 43 <= silent["over_reflection"] <= 53
    assert silent["instruction_failure"] <= 2
    for name in ERROR_CLASSES:
        assert counts[CORRECT, name] <= 2, name
        assert counts[WRONG, name] <= 8, name
