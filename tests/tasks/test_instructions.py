import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco.errors import UserError
from marco.tasks.instructions import units
from marco.tasks.instructions.checkers import pattern
from marco.tasks.instructions.grading import gold_of, loose_variants, verify
from marco.tasks.instructions.languages import CHARS, language
from marco.tasks.instructions.rules import IFEVAL, MULTI_IF, Rules

CALIBRATION = Path(__file__).parents[3] / "shared" / "data" / "calibration"
DATA = CALIBRATION.parent

ENGLISH = "the keeper lights the lamp at dusk and walks down to the harbour"
CHINESE = "灯塔照亮了海面。守塔人点亮了灯！"
LESS, LEAST = "less than", "at least"

# id, kwargs, texts that follow it, texts that do not.
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "keywords:existence",
        {"keywords": ["art", "sea"]},
        ["START at Sea.", "seaart"],
        ["art", "sea", "ar t sea"],
    ),
    ("keywords:existence", {"keywords": ["s.a"]}, ["sea", "s.a"], ["s\na"]),
    ("keywords:existence", {"keywords": ["C++"]}, ["c++"], ["C", "CC"]),
    ("keywords:existence", {"keywords": ["(sea"]}, ["(Sea"], ["sea"]),
    (
        "keywords:frequency",
        {"keyword": " aa ", "frequency": 2, "relation": LEAST},
        ["aaaa", "AA, baab"],
        ["aaa", "a a"],
    ),
    (
        "keywords:frequency",
        {"keyword": "sea", "frequency": 2, "relation": LESS},
        ["sea", "land"],
        ["sea sea", "seasea sea"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["art", "sea"]},
        ["start", "seas", "海sea"],
        ["art.", "the SEA", "sea-side"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "S", "let_frequency": 2, "let_relation": LEAST},
        ["Ss", "as is"],
        ["s", "tea"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": LESS},
        ["#", "none"],
        ["##", "# #"],
    ),
    ("language:response_language", {"language": "en"}, [ENGLISH, "1234"], [CHINESE]),
    ("language:response_language", {"language": "zh-cn"}, [CHINESE], [ENGLISH]),
    ("language:response_language", {"language": "zh"}, ["..."], [CHINESE]),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LESS},
        ["two words", "...", "海" * 9],
        ["three words here", "don't go"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LEAST},
        ["don't go", "one_two 3 4"],
        ["two words", "one_two_three"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LEAST},
        ["One here. Two there.", "What? No!"],
        ["One here.", "One here\nand here\n\nand here"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LESS},
        ["One here.", "Dr. Lamp came."],
        ["One here. Two there."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "*** one *** two ***", "one***two"],
        ["one", "one\n\ntwo", "one *** *** two", "one *** two *** three"],
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, ["one", "*** one"], ["***"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Sea"},
        ["one\n\nsea, two", "one\n\n'sea' two", 'one\n\n"Sea."', "one\n\n  sea\n\n"],
        ["one\n\nseas", "one\n\n\n\nsea", "sea", "one\n\nsea\n\nthree", "one\nsea"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 3, "first_word": "sea"},
        [],
        ["sea", "sea\n\nsea\n\nsea"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] and [b]", "[][]", "[a [b] [c]"],
        ["[a", "[a\nb] [c]", "][a]", "[[a]]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\np. s. write", "P.S.", "up.s. x"],
        ["PS", "p.s", "p.  s."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["p. p. s", "P.P.S. more"],
        ["P.S.", "PPS"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "Note"}, ["NOTE: x"], ["none"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  * b", "a\n\n * b\n\n\n- c", "---\n- a"],
        ["* a", "* a\n* b\n* c", "** a\n- b", "a * b\n- c", "*\n* a"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. So."],
        ["My answer is yes", "my answer is no."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "***a***", "*a* b **c**"],
        ["*a*", "**a**", "*a\nb* c", "** **", "****"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION ", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1SECTION 22"],
        ["SECTION 1", "Section 1 Section 2", "SECTION I SECTION II"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": []}\n```', "```\n3\n```", '"a"', "NaN"],
        ["{'a': 1}", '{"a": 1} done', "```python\n1\n```", "[" * 100_000, "1" * 5_000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<a>>", "x <<a b>> y", "<<<a>>>", "<< a\n<<b>>", "<<a> >>"],
        ["<<>>", "<< >>", "<a>", "<<a\n>>", "<<<>>>", ">><<"],
    ),
    (
        "combination:two_responses",
        {},
        ["a ****** b", "******a******b******"],
        ["a", "a ****** a", "a ****** ****** b", "a ****** b ****** c", "a ***** b"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": " Say Sea. "},
        ["say sea. Sea!", "Say Sea."],
        ["Say  Sea.", "He: Say Sea."],
    ),
    (
        "startend:end_checker",
        {"end_phrase": " The End. "},
        ["So. the end.", '"The end."', "The End.  "],
        ["The End.!", "The End", "the end. *"],
    ),
    ("startend:quotation", {}, ['"a"', '""', ' "a" "b" '], ['"', '"a', "'a'", '"a".']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        ["A SEA", "DON'T", "R&D", "CANNOT", "I, A", "B2 (C3)", "**SEA** SEA", "NASA's A"],
        ["CO-OP", "SEA sea", "NASA's", "SeA SeA", "A/B", "1 2"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LESS},
        ["SEA", "10,000A", "none", "U.S.A."],
        ["A SEA", "A,B", "IT'S", "A--B", "A…B C"],
    ),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, CHINESE, "1234"]),
    (
        "change_case:english_lowercase",
        {},
        [ENGLISH],
        [ENGLISH.title(), "1234", "die lampe brennt und der wärter schläft nicht heute nacht"],
    ),
    ("punctuation:no_comma", {}, ["a; b", "a，b、c", "a٬b"], ["a,b", ","]),
]
MULTI_IF_CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "length_constraints:number_words",
        {"num_words": 14, "relation": LEAST},
        [CHINESE],
        [CHINESE[:-3] + "。", ENGLISH],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LEAST},
        [CHINESE, "यह एक दीपस्तंभ है। वह रात में जलता है।", "One here. Two there."],
        ["灯塔照亮了海面", "यह एक दीपस्तंभ है।"],
    ),
    ("startend:quotation", {}, ['"a"', "“a”", "「a」"], ["”a“", "「a”", "«a»"]),
]


def follows(id: str, kwargs: dict[str, Any], text: str, rules: Rules) -> bool:
    gold = gold_of([id], [kwargs], rules=rules, where="here")
    return verify(text, gold, rules=rules).details["strict"] == [True]


@pytest.mark.parametrize(("id", "kwargs", "right", "wrong"), CASES)
def test_ifeval(id: str, kwargs: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    assert [text for text in right if not follows(id, kwargs, text, IFEVAL)] == []
    assert [text for text in wrong if follows(id, kwargs, text, IFEVAL)] == []


@pytest.mark.parametrize(("id", "kwargs", "right", "wrong"), MULTI_IF_CASES)
def test_multi_if(id: str, kwargs: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    assert [text for text in right if not follows(id, kwargs, text, MULTI_IF)] == []
    assert [text for text in wrong if follows(id, kwargs, text, MULTI_IF)] == []


def test_every_instruction_has_a_case() -> None:
    assert {id for id, *_ in CASES} == set(IFEVAL) == set(MULTI_IF)
    assert len(IFEVAL) == 25
    assert {id for id, *_ in MULTI_IF_CASES} == {
        id for id in IFEVAL if IFEVAL[id] is not MULTI_IF[id]
    }


@pytest.mark.parametrize(
    ("count", "texts"),
    [
        (
            partial(units.eastern_words, limit=99),
            {"灯塔": 2, "灯塔 a1 b，c": 4, "a,b": 1, "あア한": 3, "a☺b 👩‍👩‍👧 ❤": 4},
        ),
        (units.eastern_sentences, {"灯。塔！": 2, "3.14": 2, "灯\n塔": 2, "。。": 0, "a. ! b": 3}),
        (units.hindi_sentences, {"यह। वह": 2, "यह।": 1, "यह!!": 2, "यह": 1, " ": 0}),
        (units.words, {"a b": 2, "don't": 2, "_": 1, "...": 0, "दीप": 2, "海面": 1}),
    ],
)
def test_units_by_hand(count: Any, texts: dict[str, int]) -> None:
    assert {text: count(text) for text in texts} == texts


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("SEA-SIDE (A) B: C:", ["SEA-SIDE", "A", "B", "C"]),
        ("IT'S WE'LL I'm DON'T' can't", ["IT", "'S", "WE", "'LL", "I", "DO", "N'T"]),
        ("CANNOT GONNA WANNA. CANNOTS", ["CAN", "NOT", "GON", "NA", "WAN", "NA", "CANNOTS"]),
        ("A...B 'C' \"D\"", ["A", "B", "C", "D"]),
        ("Éa É 10:30PM A:B", ["É", "10:30PM", "A", "B"]),
    ],
)
def test_capital_words_by_hand(text: str, tokens: list[str]) -> None:
    assert list(units.capital_tokens(text)) == tokens
    assert units.capital_words(text, 2) == 2


def test_the_language_of_a_text() -> None:
    assert language(ENGLISH) == "en"
    assert language(CHINESE) == "zh-cn"
    assert language("") is language("12 + 30 = 42") is None
    assert language(ENGLISH + " " * CHARS + CHINESE * 99) == "en"


def test_the_variants_of_the_loose_verdict() -> None:
    assert loose_variants("a\n*b*\nc") == [
        "*b*\nc",
        "a\n*b*",
        "*b*",
        "a\nb\nc",
        "b\nc",
        "a\nb",
        "b",
    ]
    assert loose_variants("*a*") == ["a"]
    assert loose_variants("a") == []
    assert loose_variants("**\n**") == ["**"]


def test_each_instruction_may_take_another_variant() -> None:
    ids = ["startend:quotation", "punctuation:no_comma", "detectable_format:number_bullet_lists"]
    gold = gold_of(ids, [{}, {}, {"num_bullets": 1}], rules=IFEVAL, where="here")
    verdict = verify('Sure, here:\n"sea"\n- b', gold, rules=IFEVAL)
    assert verdict.details == {
        "instructions": ids,
        "strict": [False, False, True],
        "loose": [True, True, True],
    }
    assert verdict.verdict == "wrong"
    assert verdict.why == "does not follow startend:quotation, punctuation:no_comma"


def test_verdicts() -> None:
    gold = gold_of(["punctuation:no_comma"], [None], rules=IFEVAL, where="here")
    told = verify("<think>a, b</think>\n" + "sea " * 100, gold, rules=IFEVAL)
    assert (told.verdict, told.why) == ("correct", "follows all 1")
    assert told.answer is not None and told.answer.startswith("sea sea")
    assert len(told.answer) == 200
    for nothing in ("", " \n", "<think>a", "<think>a</think>\n"):
        told = verify(nothing, gold, rules=IFEVAL)
        assert (told.verdict, told.answer) == ("no_answer", None)
        assert told.details["strict"] == told.details["loose"] == [False]


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        (
            ["punctuation:no_coma"],
            [{}],
            "no instruction 'punctuation:no_coma'; did you mean `punctu",
        ),
        (["sing"], [{}], "here: no instruction 'sing'$"),
        ("punctuation:no_comma", [{}], "no `instruction_id_list`"),
        ([], [], "no `instruction_id_list`"),
        (["punctuation:no_comma"], [], "`kwargs` is no list of 1"),
        (["punctuation:no_comma"], None, "`kwargs` is no list of 1"),
        (["punctuation:no_comma"], ["{"], "not JSON"),
        (["punctuation:no_comma"], [[1]], "are \\[1\\], expected an object"),
        (["startend:end_checker"], [{"end_phrase": None}], "lacks `end_phrase`"),
        (["startend:end_checker"], [{"end_phrase": " "}], "has `end_phrase` ' '"),
        (["keywords:existence"], [{"keywords": []}], "has `keywords`"),
        (["keywords:existence"], [{"keywords": "sea"}], "has `keywords` 'sea'"),
        (["detectable_format:number_bullet_lists"], [{"num_bullets": -1}], "has `num_bullets` -1"),
        (
            ["length_constraints:number_words"],
            [{"num_words": 3, "relation": "at most"}],
            "has `relation` 'at most'",
        ),
    ],
)
def test_malformed_instructions_are_named(ids: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gold_of(ids, kwargs, rules=IFEVAL, where="here")


def test_the_gold_is_canonical() -> None:
    nulls = {"keywords": None, "num_words": 3, "relation": LESS}
    gold = gold_of(["length_constraints:number_words"], [nulls], rules=IFEVAL, where="here")
    assert json.loads(gold) == [
        {"id": "length_constraints:number_words", "kwargs": {"num_words": 3, "relation": LESS}}
    ]
    assert gold == gold_of(
        ["length_constraints:number_words"],
        ['{"relation": "less than", "num_words": 3}'],
        rules=IFEVAL,
        where="here",
    )


GOLDS = {
    name: gold_of(
        [id for id, *_ in CASES], [kwargs for _, kwargs, *_ in CASES], rules=rules, where=""
    )
    for name, rules in (("ifeval", IFEVAL), ("multi_if", MULTI_IF))
}


def hostile(n: int) -> list[str]:
    """Texts of some n characters that make careless checkers crawl or crash."""
    pieces = [
        "* ",
        "<<",
        "- \n",
        "\n* ",
        "p.",
        "a.\n",
        "***",
        "A\u0301 ",
        "”.",
        "[a]",
        "\ud800 \udfff",
    ]
    pieces += ["\ufeff\u202e\x00\x1b[0m\r\x85\u2028", "<think>", '{"a":', "灯。😀", "Mr. ", "? "]
    return [
        *(character * n for character in "aA.*[<-\n,'\"灯😀।1{ _#"),
        *(piece * (n // len(piece)) for piece in pieces),
        "[" * (n // 2) + "]" * (n // 2),
        "http://" + "a" * (n // 2) + "@" * (n // 2),
        "灯塔" * 100 + "😀" * n,
        " ".join(f"J. X{number}" for number in range(n // 10)),
    ]


@pytest.mark.parametrize("text", hostile(50_000), ids=lambda text: ascii(text[:8]))
def test_hostile_texts_get_a_verdict(text: str) -> None:
    for name, rules in (("ifeval", IFEVAL), ("multi_if", MULTI_IF)):
        assert verify(f"a{text}b", GOLDS[name], rules=rules).verdict == "wrong"


@pytest.mark.torture
@pytest.mark.parametrize("text", hostile(1_000_000), ids=lambda text: ascii(text[:8]))
def test_long_hostile_texts_get_a_verdict(text: str) -> None:
    for name, rules in (("ifeval", IFEVAL), ("multi_if", MULTI_IF)):
        assert verify(f"a{text}b", GOLDS[name], rules=rules).verdict == "wrong"


ALPHABET = st.sampled_from(
    [*"aA.*[]<>-\n ,'\"灯😀।1{}:?!“”", "P.S.", "***", "n't", "\ud800", "ß", "İ"]
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.lists(ALPHABET, max_size=40).map("".join)))
def test_any_text_gets_a_verdict(text: str) -> None:
    for name, rules in (("ifeval", IFEVAL), ("multi_if", MULTI_IF)):
        details = verify(text, GOLDS[name], rules=rules).details
        assert len(details["strict"]) == len(details["loose"]) == len(CASES)
        assert all(
            loose >= strict
            for strict, loose in zip(details["strict"], details["loose"], strict=True)
        )


@given(st.text(alphabet="ab.?C- ", min_size=1).filter(str.strip), st.text(alphabet="abC.?- \n"))
def test_a_phrase_without_marks_is_searched_for_as_written(phrase: str, text: str) -> None:
    plain = phrase.translate(str.maketrans("", "", ".?"))
    assert bool(pattern(plain).search(text)) == (plain.lower() in text.lower())


def read(name: str) -> list[dict[str, Any]]:
    lines = (CALIBRATION / name).read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


known_verdicts = pytest.mark.skipif(
    not CALIBRATION.is_dir(), reason="the known verdicts are not beside the repository"
)


@known_verdicts
def test_known_verdicts_of_single_instructions() -> None:
    for case in read("multi_if_lang_cases.jsonl"):
        gold = gold_of([case["instruction_id"]], [case["kwargs"]], rules=MULTI_IF, where="")
        details = verify(case["response"], gold, rules=MULTI_IF).details
        assert (details["strict"], details["loose"]) == ([case["strict"]], [case["loose"]]), case
