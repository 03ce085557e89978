from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marco.search.pattern import ANSWER
from marco.tasks.answers import THOUGHTS, extract_number, final_part, verify_number
from marco.tasks.numbers import canonical, value_of

KINDS = sorted((Path(__file__).parents[2] / "conf" / "kinds").glob("*.yaml"))

CASES = [
    # The answer tag: the last closed one, the last number in it.
    ("<answer>\nThe answer is: 46\n</answer>\n", "46", "tag"),
    ("<answer>40</answer> or rather <answer>46</answer>", "46", "tag"),
    ("<answer>7 * 6 + 4 = 46</answer>", "46", "tag"),
    ("<answer>46</answer> The answer is 5. \\boxed{6} #### 7", "46", "tag"),
    ("<answer>no idea</answer> The answer is 5.", None, "tag"),
    ("<answer></answer>", None, "tag"),
    ("<answer>46", None, "no rule applies"),
    ("46</answer>", None, "no rule applies"),
    ("</answer> The answer is 5 <answer>", "5", "phrase"),
    # How a number is written.
    ("<answer>1,234</answer>", "1234", "tag"),
    ("<answer>1,234,567.50</answer>", "1234567.5", "tag"),
    ("<answer>$12</answer>", "12", "tag"),
    ("<answer>$1,234.</answer>", "1234", "tag"),
    ("<answer>-5</answer>", "-5", "tag"),
    ("<answer>\u22125</answer>", "-5", "tag"),
    ("<answer>-$5</answer>", "-5", "tag"),
    ("<answer>$-5</answer>", "-5", "tag"),
    ("<answer>+5</answer>", "5", "tag"),
    ("<answer>10-5</answer>", "5", "tag"),
    ("<answer>0.50</answer>", "0.5", "tag"),
    ("<answer>.5</answer>", "0.5", "tag"),
    ("<answer>wait...5</answer>", None, "tag"),
    ("<answer>46.0</answer>", "46", "tag"),
    ("<answer>007</answer>", "7", "tag"),
    ("<answer>-0</answer>", "0", "tag"),
    ("<answer>46%</answer>", "46", "tag"),
    ("<answer>46kg</answer>", "46", "tag"),
    ("<answer>**46**</answer>", "46", "tag"),
    ("<answer>x46</answer>", None, "tag"),
    ("<answer>\u0664\u0666</answer>", "46", "tag"),
    # The box.
    ("so \\boxed{5}, no, \\boxed{46}.", "46", "box"),
    ("so \\boxed{\\$46}", "46", "box"),
    ("so \\boxed{46", None, "no rule applies"),
    ("The answer is \\boxed{46", None, "phrase"),
    ("so \\boxed{46}, no, \\boxed{5", "46", "box"),
    ("so \\boxed{\\text{46 pens}}", "46", "box"),
    ("so \\boxed{1{,}046}", "1046", "box"),
    ("so \\boxed{1,\\!046}", "1046", "box"),
    ("so \\fbox{46}", "46", "box"),
    ("so $\\boxed 46$", "46", "box"),
    ("so \\boxed{}", None, "box"),
    ("\\boxed{46} #### 5", "46", "box"),
    # Hashes, as in GSM8K's gold answers.
    ("7 * 6 = <<7*6=42>>42\n#### 46", "46", "hashes"),
    ("#### 5\n#### $1,046\n", "1046", "hashes"),
    ("####\n46", None, "hashes"),
    ("#### 46\nThe answer is 5.", "46", "hashes"),
    ("#### Step by step\nThe answer is 46.", "46", "phrase"),
    ("#### **46**", "46", "hashes"),
    # The last line, as in GSM8K's published outputs.
    ("7 * 6 = <<7*6=42>>42\nA: 46", "46", "line"),
    ("A: 46\nB: 5", None, "no rule applies"),
    ("Q: 5?\nA: none", None, "line"),
    # The phrase, within its sentence.
    ("So the answer is 46.", "46", "phrase"),
    ("The answer is: $46.50.", "46.5", "phrase"),
    ("Final Answer: 46", "46", "phrase"),
    ("ANSWER: 1,046", "1046", "phrase"),
    ("**Answer**: 46", "46", "phrase"),
    ("The answer isn't 46.", None, "no rule applies"),
    ("The answer is 7 * 6 + 4 = 46.", "46", "phrase"),
    ("The answer is 7 * 6 = 42 and 42 + 4 = 46 pens in 7 boxes.", "46", "phrase"),
    ("The answer is 46 =", "46", "phrase"),
    ("The answer is\n\n46", "46", "phrase"),
    ("The answer is 5. No: the answer is 46 pens, not 5.", "46", "phrase"),
    ("The answer is not clear. I have 5 pens.", None, "phrase"),
    ("The answer is" + " very" * 60 + " 46", None, "phrase"),
    # Thinking that never ends holds no answer.
    ("<thinking>\nthe answer is 46", None, "no rule applies"),
    ("<think>\n<answer>46</answer>", None, "no rule applies"),
    ("<thinking>\n5\n</thinking>\n<thinking>\n<answer>46</answer>", None, "no rule applies"),
    ("the answer is 5 <think> the answer is 46", "5", "phrase"),
    ("<thinking>\n5\n</thinking>\n<answer>\n46\n</answer>", "46", "tag"),
    # Nor does thinking that has ended.
    ("<think>\\boxed{5}</think>The answer is 46.", "46", "phrase"),
    ("<think><answer>5</answer></think>\\boxed{46}", "46", "box"),
    ("the answer is 5</think>The answer is 46.", "46", "phrase"),
    ("<think>the answer is 46</think>", None, "no rule applies"),
    ("<|begin_of_thought|>#### 5<|end_of_thought|>\n#### 46", "46", "hashes"),
    ("<|begin_of_thought|>#### 5", None, "no rule applies"),
    # A number is taken whole: powers of ten, fractions, sums, and thousands with spaces.
    ("so \\boxed{" + "0" * 38 + "18999}", "18999", "box"),
    ("so \\boxed{1e5}", "100000", "box"),
    ("The answer is 18e3.", "18000", "phrase"),
    ("#### 18/2", "9", "hashes"),
    ("#### 18/7", "18/7", "hashes"),
    ("#### 1/8", "0.125", "hashes"),
    ("so \\boxed{36/2}", "18", "box"),
    ("so \\boxed{\\frac{36}{2}}", "18", "box"),
    ("so \\boxed{2^{18}}", "262144", "box"),
    ("The answer is $2^{18}$.", "262144", "phrase"),
    ("so \\boxed{(10+8)*2-1}", "35", "box"),
    ("so \\boxed{-2^2}", "-4", "box"),
    ("The answer is 12 1/2.", "12.5", "phrase"),
    ("so \\boxed{1 000}", "1000", "box"),
    ("so \\boxed{1\\,000}", "1000", "box"),
    ("so \\boxed{1\u2009000\u2009000}", "1000000", "box"),
    ("The answer is 1 000.", "1000", "phrase"),
    ("so \\boxed{x = 18}", "18", "box"),
    ("so \\boxed{18 \\text{ pens}}", "18", "box"),
    ("so \\boxed{Tom has 18 pens}", "18", "box"),
    ("The answer is $18/hour.", "18", "phrase"),
    ("<answer>46!</answer>", "46", "tag"),
    # A sign may stand apart, where it is no list's mark and no dash.
    ("The answer is - 18", "-18", "phrase"),
    ("#### - 18", "-18", "hashes"),
    ("so \\boxed{- 18}", "-18", "box"),
    ("The answer is:\n- 18 pens", "18", "phrase"),
    ("The answer is \u2013 18", "18", "phrase"),
    ("The answer is \u201318", "-18", "phrase"),
    # What cannot be read as one number is an answer, and no number.
    ("The answer is 1,8000", "1,8000", "phrase"),
    ("so \\boxed{1,8000}", "1,8000", "box"),
    ("The answer is 1.2.3", "1.2.3", "phrase"),
    ("so \\boxed{18!}", "18!", "box"),
    ("so \\boxed{x_{18}}", "x_{18}", "box"),
    ("so \\boxed{x^{18}}", "x^{18}", "box"),
    ("so \\boxed{18x}", "18x", "box"),
    ("so \\boxed{1 8}", "1 8", "box"),
    ("so \\boxed{17, 18}", "17, 18", "box"),
    ("so \\boxed{17 or 18}", "17 or 18", "box"),
    ("so \\boxed{9\\sqrt{18}}", "9\\sqrt{18}", "box"),
    (
        "so \\boxed{\\begin{pmatrix}1\\\\18\\end{pmatrix}}",
        "\\begin{pmatrix}1\\\\18\\end{pmatrix}",
        "box",
    ),
    ("The answer is $18\\sqrt{2}$", "18\\sqrt{2}", "phrase"),
    ("The answer is 18(3)", "18(3)", "phrase"),
    ("The answer is 18k.", "18k", "phrase"),
    ("The answer is 3\u00bd.", "3\u00bd", "phrase"),
    # No answer: the last number is not taken for one.
    ("7 * 6 = 42, 42 + 4 = 46", None, "no rule applies"),
    ("", None, "no rule applies"),
    ("I answered 46.", None, "no rule applies"),
]


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS)
def test_thoughts_hold_no_answer(opening: str, closing: str) -> None:
    """Of every kind of thought alike."""
    said = "\nThe answer is 18"
    assert extract_number(opening + said) == (None, "no rule applies")
    assert final_part(opening + said) == ""
    assert extract_number(f"{opening}{said}{closing}") == (None, "no rule applies")
    assert extract_number(f"{opening}\n5\n{closing}\n<answer>18</answer>{opening}") == ("18", "tag")
    assert extract_number(f"5{closing}{said}")[0] == "18"
    assert extract_number(f"The answer is 5. {opening}{said}")[0] == "5"


def test_a_thought_in_another_ends_with_the_outer_one() -> None:
    assert final_part("<think>so <reflection> wait </think> 18") == "18"
    assert final_part("<think>so <reflection> wait </reflection> 18") == ""


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.stem)
def test_every_kind_of_node_is_a_thought_but_the_answer(file: Path) -> None:
    kinds = yaml.safe_load(file.read_text("utf-8"))
    tags = {kind["tag"] for name, kind in kinds.items() if name != ANSWER}
    assert {(f"<{tag}>", f"</{tag}>") for tag in tags} <= set(THOUGHTS)


@pytest.mark.parametrize(("response", "answer", "rule"), CASES)
def test_extract(response: str, answer: str | None, rule: str) -> None:
    assert extract_number(response) == (answer, rule)


MEGABYTE = 1_000_000
SHORTER = 300_000  # of pieces that rules stop at, which take longer; a megabyte of them is torture


@pytest.mark.parametrize(
    "piece",
    [
        "9", "1,", "1,234,", "-", "$", "-$", ".", "1.", "\u2212", " ", "\n", "#", "####", "{", "x",
        "<answer>", "</answer>", "<answer>1", "\\boxed{", "\\boxed{1}", "<thinking>", "<think>",
        "the answer is ", "answer:", "answer is 1.", "<thinking></thinking>", "1 ", "a", "\u0664",
    ],
)  # fmt: skip
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """Quadratic time on a megabyte would be hours; that this ends is the test."""
    hostile = piece * ((MEGABYTE if len(piece) == 1 else SHORTER) // len(piece))
    for text in (hostile, f"<answer>{hostile}</answer>", f"\\boxed{{{hostile}}}", f"####{hostile}"):
        extract_number(text)
        extract_number(f"the answer is {text}")


@given(st.text(), st.text())
def test_any_text_gives_a_verdict(response: str, gold: str) -> None:
    verdict = verify_number(response, gold)
    assert (verdict.verdict == "no_answer") == (verdict.answer is None)


@given(st.integers(-(10**26), 10**26))
def test_every_way_to_write_an_integer_reads_the_same(number: int) -> None:
    for written in (f"{number}", f"{number:,}", f"{number}.00", f"{number:,}.0"):
        assert extract_number(f"<answer>{written}</answer>")[0] == str(number) == canonical(written)
        assert extract_number(f"The answer is {written} pens.")[0] == str(number)


@given(
    st.integers(2, 10**30),
    st.sampled_from(
        [",", ".", "^", "e", "E", "/", "*", "+", "-", "_", "!", " ", ":", "x", "(", "^{"]
    ),
    st.integers(2, 10**5),
    st.sampled_from(
        ["\\boxed{{{}}}", "<answer>{}</answer>", "The answer is {}", "#### {}", "A: {}"]
    ),
)
def test_no_part_of_a_number_counts(number: int, join: str, more: int, frame: str) -> None:
    """A `!` or a space after an answer in words is none of the number's."""
    if frame[0] in "\\<" or join not in "! x:":
        assert extract_number(frame.format(f"{number}{join}{more}"))[0] != str(number)


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 99)), max_size=6))
def test_arithmetic_is_exact(terms: list[tuple[str, int]]) -> None:
    text = "7" + "".join(f" {sign} {n}" for sign, n in terms)
    value = eval("Fraction(7)" + "".join(f" {sign} Fraction({n})" for sign, n in terms))
    found = value_of(text)
    assert found is not None and Fraction(found) == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("$1,234.50", "1234.5"),
        ("1e3", "1000"),
        ("-0.0", "0"),
        ("", None),
        ("five", None),
        ("5+5", None),
        ("nan", None),
        ("inf", None),
        ("1e999999", None),
        ("1e-999999999", None),
        ("9" * 5000, None),
        ("1,8000", None),
        ("1 000", "1000"),
        ("1 8", None),
        ("1e-2", "0.01"),
    ],
)
def test_canonical(text: str, number: str | None) -> None:
    assert canonical(text) == number
