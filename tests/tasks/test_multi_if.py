import csv
import json
from pathlib import Path
from typing import Any

import pytest

from marco.errors import UserError
from marco.tasks.multi_if import MultiIF, MultiIFConfig

DATA = Path(__file__).parents[3] / "shared" / "data"
BENCHMARK = DATA / "multi_if" / "multiIF_20241018_english.csv"
CHINESE = DATA / "multi_if" / "sample_zh.jsonl"
ANSWERS = DATA / "calibration" / "ifeval_gpt4.jsonl"
KNOWN = DATA / "calibration" / "multi_if_en.jsonl"
RANDOM_LETTER = "1122"  # the official checkers draw a letter where it asks for `!`

ADDED = (
    ("punctuation:no_comma", {}),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 4}),
    ("startend:quotation", {}),
)


def row(key: str, language: str = "English", /, **changes: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {"key": key, "language": language, "turns": "", "turn_index": 0}
    for turn in (1, 2, 3):
        message = {"role": "user", "content": f"Say {turn} of {key}."}
        columns[f"turn_{turn}_prompt"] = json.dumps(message)
        ids = [id for id, _ in ADDED[:turn]]
        columns[f"turn_{turn}_instruction_id_list"] = json.dumps(ids)
        kwargs = [json.dumps(kwargs) for _, kwargs in ADDED[:turn]]
        columns[f"turn_{turn}_kwargs"] = json.dumps(kwargs)
    return columns | changes


def task(**changes: Any) -> MultiIF:
    values = {"hub": "nowhere/multi_if", "train_file": None, "test_file": None, "train": None}
    values |= {"validation": 2, "test": None}
    return MultiIF(MultiIFConfig(name="multi_if", response_tokens=9, **values | changes))


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    rows = [row("1:1:en"), row("1:1:zh", "Chinese", turn_3_prompt="")]
    lines = tmp_path / "test.jsonl"
    lines.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    table = tmp_path / "test.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    problems = task(test_file=str(lines)).problems("test")
    assert task(test_file=str(table)).problems("test") == problems
    first, second = problems
    assert (first.id, first.problem, first.group) == ("1:1:en", "Say 1 of 1:1:en.", "English")
    assert [turn.problem for turn in first.follow_ups] == ["Say 2 of 1:1:en.", "Say 3 of 1:1:en."]
    assert {turn.id for turn in first.follow_ups} == {"1:1:en"}
    golds = [json.loads(turn.answer) for turn in (first, *first.follow_ups)]
    assert [len(gold) for gold in golds] == [1, 2, 3]
    assert golds[2][1]["kwargs"] == {"num_words": 4, "relation": "less than"}
    assert (second.group, len(second.follow_ups)) == ("Chinese", 1)


def test_the_plain_form() -> None:
    multi_if = task()
    problem = multi_if.parse(row("1:1:en", turn_2_prompt=None, turn_3_prompt="None"), 1, "here")
    plain = {"id": "1:1:en", "problem": problem.problem, "answer": problem.answer}
    assert multi_if.parse(plain | {"group": "English"}, 1, "here") == problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, "here, line 3: no `key`"),
        ({"language": ""}, "line 3: no `language`"),
        ({"turn_1_prompt": ""}, r"line 3: turns \[2, 3\] have a `turn_N_prompt`"),
        ({"turn_2_prompt": None}, r"line 3: turns \[1, 3\] have"),
        ({"turn_2_prompt": "Say"}, "line 3: not JSON: 'Say'"),
        ({"turn_2_prompt": '{"role": "user"}'}, "`turn_2_prompt` is no message with a `content`"),
        ({"turn_2_prompt": '"Say"'}, "`turn_2_prompt` is no message with a `content`"),
        ({"turn_2_instruction_id_list": "[]"}, "line 3, turn 2: no `instruction_id_list`"),
        ({"turn_3_kwargs": "[]"}, "line 3, turn 3: `kwargs` is no list of 3"),
        ({"turn_3_kwargs": '["{}", "{}", "{}"]'}, "turn 3: .*number_words lacks `num_words`"),
    ],
)
def test_a_malformed_row_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task().parse(row("1:1:en", **changes), 3, "here")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def sample(turn: int, group: str, strict: list[bool], loose: list[bool]) -> dict[str, Any]:
    details = {"instructions": ["id"] * len(strict), "strict": strict, "loose": loose}
    return {"id": f"{group}-{turn}", "turn": turn, "group": group, "details": details}


def test_figures_by_hand() -> None:
    yes, no = True, False
    samples = [
        sample(1, "English", [yes], [yes]),
        sample(1, "English", [no], [yes]),
        sample(2, "English", [yes, no], [yes, no]),
        sample(3, "English", [no, no, yes], [yes, yes, yes]),
        sample(1, "Hindi", [no], [no]),
        sample(2, "Hindi", [yes, yes], [yes, yes]),
    ]
    figures = task().figures(samples)
    cells = figures["turns_and_languages"]
    # Prompts and instructions strictly, then loosely; their mean is official.
    assert {name: cell["official"] for name, cell in cells.items()} == {
        "1/English": (1 / 2 + 1 / 2 + 1 + 1) / 4,
        "1/Hindi": 0,
        "2/English": (0 + 1 / 2 + 0 + 1 / 2) / 4,
        "2/Hindi": 1,
        "3/English": pytest.approx((0 + 1 / 3 + 1 + 1) / 4),
    }
    english = (3 / 4 + 1 / 4 + 7 / 12) / 3
    assert figures["official"] == pytest.approx((3 / 4 + 0 + 1 / 4 + 1 + 7 / 12) / 5)
    assert figures["prompts"] == 6
    assert figures["instructions"] == 10
    assert figures["groups"]["en"]["official"] == pytest.approx(english)
    assert figures["groups"]["other"]["official"] == 1 / 2
    assert set(figures["groups"]) == {"en", "other"}
    assert figures["languages"]["English"]["official"] == pytest.approx(english)
    assert figures["turns"]["1"]["official"] == (3 / 4 + 0) / 2
    assert figures["turns"]["2"]["prompt_strict"] == 1 / 2
    assert figures["turns"]["3"] == cells["3/English"]
    # A turn's prompts pooled: 1 of 3 strict, 2 of 3 loose.
    assert figures["turns_pooled"]["1"]["official"] == pytest.approx(1 / 2)


def test_a_group_of_chinese() -> None:
    figures = task().figures([sample(1, "Chinese", [True], [True])])
    assert figures["groups"] == {"zh": figures["turns"]["1"]}


@pytest.mark.skipif(not BENCHMARK.is_file(), reason="the benchmark is not beside the repository")
def test_every_conversation_of_the_benchmark_is_read() -> None:
    problems = task(test_file=str(BENCHMARK)).problems("test")
    turns = [1 + len(problem.follow_ups) for problem in problems]
    assert (len(turns), turns.count(3), turns.count(2)) == (909, 896, 13)
    assert {problem.group for problem in problems} == {"English"}
    (chinese,) = task(test_file=str(CHINESE)).problems("test")
    assert (chinese.group, len(chinese.follow_ups)) == ("Chinese", 2)


@pytest.mark.skipif(not KNOWN.is_file(), reason="the known verdicts are not beside the repository")
def test_known_verdicts() -> None:
    multi_if = task(test_file=str(BENCHMARK))
    problems = {problem.id: problem for problem in multi_if.problems("test")}
    responses = {str(row["key"]): row["response"] for row in read(ANSWERS)}
    compared = 0
    for known in read(KNOWN):
        key = known["key"].split(":")[0]
        if key == RANDOM_LETTER:
            continue
        problem = problems[known["key"]]
        for turn, asked in enumerate((problem, *problem.follow_ups), 1):
            told = multi_if.verify(responses[key], asked).details
            wanted = known["turns"][str(turn)]
            assert {level: told[level] for level in wanted} == wanted, (known["key"], turn)
            compared += 1
    assert compared > 600
