"""Whatever a model writes gets a verdict. A task is added to `TASKS`, with a problem of its own."""

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marco.tasks.problem import Problem
from marco.tasks.task import Task
from tests.tasks import test_aime, test_arithmetic, test_gsm8k, test_letter_count, test_math
from tests.tasks.test_equality import settings as grading

QUICK = grading(limit_s=1, max_characters=500)
TASKS: dict[str, tuple[Callable[[], Task], str]] = {
    "arithmetic": (test_arithmetic.task, "46"),
    "gsm8k": (test_gsm8k.task, "46"),
    "math": (lambda: test_math.task(grading=QUICK), "\\frac{\\sqrt{3}}{2}"),
    "math, a set": (lambda: test_math.task(grading=QUICK), "(-\\infty, 2) \\cup (3, \\infty)"),
    "aime": (lambda: test_aime.task(grading=QUICK), "46"),
    "letter_count": (test_letter_count.task, "3"),
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
    "%s%n", "<script>", "__class__",
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


def check(name: str, responses: list[str]) -> None:
    make, gold = TASKS[name]
    problem = Problem(id="p", problem="?", answer=gold)
    verdicts = make().verify_all([(response, problem) for response in responses])
    assert len(verdicts) == len(responses)
    for verdict in verdicts:
        assert verdict.verdict in ("correct", "wrong", "no_answer")
        assert (verdict.verdict == "no_answer") == (verdict.answer is None)
        assert verdict.verdict == "wrong" or not verdict.is_flagged
        assert json.dumps([verdict.answer, verdict.why])


TOGETHER = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=20, **TOGETHER)  # type: ignore[arg-type]
@given(responses=st.lists(outputs(100_000), min_size=20, max_size=20))
def test_every_output_gets_a_verdict(name: str, responses: list[str]) -> None:
    """400 outputs a task."""
    check(name, responses)


@pytest.mark.torture
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("part", range(4))
@settings(max_examples=43, **TOGETHER)  # type: ignore[arg-type]
@given(responses=st.lists(outputs(1_000_000), min_size=100, max_size=100))
def test_100_000_outputs_get_a_verdict(name: str, part: int, responses: list[str]) -> None:
    """4,300 a task and part."""
    check(name, responses)


def megabytes(frames: Sequence[str]) -> list[str]:
    return [frame.format(piece * (1_000_000 // len(piece))) for piece in BAIT for frame in frames]


def test_a_megabyte_of_one_piece() -> None:
    """Quadratic time would be hours; that this ends is the test. (Numbers: test_answers.py.)"""
    check("math", megabytes(FRAMES[1:2]))


@pytest.mark.torture
@pytest.mark.parametrize("name", TASKS)
def test_a_megabyte_of_one_piece_everywhere(name: str) -> None:
    check(name, megabytes(FRAMES))
