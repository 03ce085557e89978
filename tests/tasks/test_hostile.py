"""Whatever a model writes gets a verdict. A task is added to `TASKS`, with a problem of its own."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marco.tasks.problem import Problem
from marco.tasks.task import Task
from tests.tasks import (
    test_aime,
    test_arithmetic,
    test_blocksworld,
    test_gsm8k,
    test_ifeval,
    test_letter_count,
    test_math,
    test_multi_if,
)
from tests.tasks.test_equality import settings as grading

LIMIT_S = 1.0
# Beyond the time-out of a comparison: a worker that was killed starts anew, on a busy machine.
MARGIN_S = 30.0
GROWTH_MB = 100  # of this process, by the verdicts of a lot; workers have limits of their own
QUICK = grading(limit_s=LIMIT_S, max_characters=500)
INSTRUCTIONS = (
    ("punctuation:no_comma", {}),
    ("keywords:existence", {"keywords": ["the"]}),
    ("language:response_language", {"language": "en"}),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 100}),
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 99_999}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("startend:quotation", {}),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 999_999},
    ),
)
FOLLOWED = json.dumps([{"id": id, "kwargs": kwargs} for id, kwargs in INSTRUCTIONS])
TASKS: dict[str, tuple[Callable[[], Task], str]] = {
    "arithmetic": (test_arithmetic.task, "46"),
    "gsm8k": (test_gsm8k.task, "46"),
    "math": (lambda: test_math.task(grading=QUICK), "\\frac{\\sqrt{3}}{2}"),
    "math, a set": (lambda: test_math.task(grading=QUICK), "(-\\infty, 2) \\cup (3, \\infty)"),
    "aime": (lambda: test_aime.task(grading=QUICK), "46"),
    "letter_count": (test_letter_count.task, "3"),
    "blocksworld": (test_blocksworld.task, test_blocksworld.GOLD),
    "ifeval": (test_ifeval.task, FOLLOWED),
    "multi_if": (test_multi_if.task, FOLLOWED),
}

ORDINARY = (
    "46", "0.5", r"\frac{1}{2}", "x^2 + 1", r"\sqrt{2}", "(1, 2)", r"\frac{\sqrt{3}}{2}", r"50\%",
    r"x < 3 \text{ or } x > 5", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\text{Monday}", "-7",
    r"\sin(60^\circ)", r"[2, \infty)", "y = 2x + 3", "3 + 4i", r"1 \pm \sqrt{3}", "5 cm", "1011_2",
)  # fmt: skip
COSTLY = (
    "9^{9^{9^{9}}}", "9^9^9^9", "((9!)!)!", "100000!", "(9^{999})^{999}", "2^{999999999}",
    r"\sum_{n=1}^{999999} n^n", r"\binom{99999}{49999}", "10^{-9999}", r"\tan(\tan(\tan(x^x)))",
    r"\sqrt[99]{2^{999}+1}", "x^{y^{z^{w}}}", r"\frac{1}{0}", "0^0", r"\infty - \infty", "1e999",
    "((10!)!)!", r"\int_0^{\infty} e^{-x^x} \ln(\sin x) dx",
    r"\int_0^1 x^x dx", "(a+b+c+d)^{99} = 0", "x^9 + x + 1 < 0", r"\{x | x^x > 2\}",
)  # fmt: skip
BAIT = (
    "{", "}", "(", ")", "[", "]", r"\{", "$", "$$", r"\(", r"\[", "\\", "\\\\", "^", "_", "&", "=",
    "<", ",", "-", "1", "1,", "1 ", ".", "!", "a", " ", "\n", "\t", "+1", "x+", r"\frac", r"\frac{",
    r"\sqrt{", r"\text{", r"\boxed{", r"\boxed{1}", r"\fbox ", r"\pm", r"\cup", r"\left(", "{,}",
    r"\begin{matrix}", r"\end{matrix}", "<think>", "</think>", "<answer>", "</answer>", "####",
    "<|begin_of_thought|>", "the answer is ", "A:", "<|im_end|>", "<|endoftext|>", "\x00",
    "\x1b[2J", "\u202e", "\ud800", "\udfff", "\U0001f600", "\u0664", "import os", "{{7*7}}",
    "%s%n", "<script>", "__class__", "<reflection>", "</reflection>", "[PLAN]", "[PLAN END]",
    "pick up the red block\n", "stack ", "unstack a b ", "(", "AB's ", "Aa ",
    "\u0928\u092e\u0964", "\u4f60", "***", "* ", "<<", "\u2248", "e9", "/2", "1,8000 ",
)  # fmt: skip
FRAMES = (
    "{}", "\\boxed{{{}}}", "<answer>{}</answer>", "The answer is {}.", "The answer is ${}$.",
    "#### {}", "<think>{}</think> so \\boxed{{46}}", "<think>{}", "\\boxed{{{}", "$\\boxed {}$",
    "\\boxed{{46}} {}", "{} \\boxed{{46}}", "\\[ {} \\]", "<answer>\\boxed{{{}}}</answer>",
)  # fmt: skip


def repeated(most: int) -> st.SearchStrategy[str]:
    """One piece many times, up to `most` characters, or a piece and its opposite around one."""
    counts = st.sampled_from((1, 3, 60, 20_000, most))
    pieces = st.sampled_from(BAIT + ORDINARY)

    def build(piece: str, other: str, count: int, is_nest: bool) -> str:
        times = max(1, min(count, most // len(piece)))
        return piece * times + (f"1{other * times}" if is_nest else "")

    return st.builds(build, pieces, st.sampled_from("})]$\\"), counts, st.booleans())


def outputs(most: int) -> st.SearchStrategy[str]:
    content = st.one_of(
        st.sampled_from(ORDINARY),
        st.sampled_from(COSTLY),
        repeated(most),
        st.text(max_size=50),
        st.lists(st.sampled_from(BAIT + ORDINARY + COSTLY), max_size=12).map("".join),
    )
    framed = st.builds(lambda frame, text: frame.format(text), st.sampled_from(FRAMES), content)
    return st.one_of(framed, framed, st.lists(framed, max_size=3).map(" ".join))


def check(name: str, responses: list[str], *, together: int = 1) -> list[float]:
    """The seconds of each verdict; of `together` asked for at once, the mean."""
    make, gold = TASKS[name]
    problem, task, seconds = Problem(id="p", problem="?", answer=gold), make(), []
    for start in range(0, len(responses), together):
        lot = responses[start : start + together]
        held, started = forget_peak(), time.perf_counter()
        verdicts = task.verify_all([(response, problem) for response in lot])
        seconds += [(time.perf_counter() - started) / len(lot)] * len(lot)
        assert held_mb("VmHWM") - held < GROWTH_MB
        assert len(verdicts) == len(lot)
        for verdict in verdicts:
            assert verdict.verdict in ("correct", "wrong", "no_answer")
            assert (verdict.verdict == "no_answer") == (verdict.answer is None)
            assert verdict.verdict == "wrong" or not verdict.is_flagged
            assert json.dumps([verdict.answer, verdict.why, dict(verdict.details)])
        assert seconds[-1] < LIMIT_S + MARGIN_S, lot[0][:100]
    return seconds


def check_many(name: str, most: int, *, size: int, examples: int, together: int = 1) -> None:
    """Verdicts on `size` outputs for each of the examples, half of them in under a second."""
    seconds: list[float] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=tuple(HealthCheck))  # type: ignore[arg-type]
    @given(responses=st.lists(outputs(most), min_size=size, max_size=size))
    def every_output_gets_a_verdict(responses: list[str]) -> None:
        seconds.extend(check(name, responses, together=together))

    check(name, ["\\boxed{x^2 + 1}", "The answer is 46."])  # the workers have started
    every_output_gets_a_verdict()
    assert len(seconds) >= size * examples
    assert statistics.median(seconds) < 1


def held_mb(name: str) -> float:
    """Memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def forget_peak() -> float:
    """What is held now, from which the peak counts anew: hypothesis holds megabytes itself."""
    Path("/proc/self/clear_refs").write_text("5")
    return held_mb("VmRSS")


@pytest.mark.parametrize("name", TASKS)
def test_every_output_gets_a_verdict(name: str) -> None:
    """260 outputs a task, 2,340 in all."""
    check_many(name, 100_000, size=20, examples=13)


@pytest.mark.torture
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("part", range(4))
def test_100_000_outputs_get_a_verdict(name: str, part: int) -> None:
    """2,800 a task and part."""
    check_many(name, 1_000_000, size=100, examples=28, together=100)


def megabytes(frames: Sequence[str]) -> list[str]:
    return [frame.format(piece * (1_000_000 // len(piece))) for piece in BAIT for frame in frames]


def test_a_megabyte_of_one_piece() -> None:
    """Quadratic time would be hours; that this ends is the test. (Numbers: test_answers.py.)"""
    check("math", megabytes(FRAMES[1:2]))


@pytest.mark.torture
@pytest.mark.parametrize("name", TASKS)
def test_a_megabyte_of_one_piece_everywhere(name: str) -> None:
    check(name, megabytes(FRAMES), together=20)
