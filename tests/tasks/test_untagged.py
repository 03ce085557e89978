"""Which replies are thoughts from end to end; the replies here are our own, but for real ones."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco.tasks.answers import final_part
from marco.tasks.instructions.grading import verify
from marco.tasks.instructions.rules import IFEVAL
from marco.tasks.untagged import is_thought_alone, spoken_part

DATA = Path(__file__).parents[2].parent / "shared" / "data"
GOLD = '[{"id": "punctuation:no_comma", "kwargs": {}}]'

ALONE = {
    "one paragraph": "Okay, the user wants two words in French. Let me think about the register. "
    "What do the words mean? Maybe I should look at where they come from",
    "several paragraphs": "Alright, so I need to write a poem without commas.\n\n"
    "The user also asks for capitals. Hmm, how does that go together?\n\n"
    "First, I should look at the constraints. Then I can start",
    "the user first": "The user is asking me for a title. I need to find one that fits.",
    "let us see": "Okay, let's see. The prompt asks for two parts. I should keep both short.",
    "with a curly apostrophe": "Okay, let’s see what the user wants. I’ll think of a poem first.",
    "Chinese": "好的，用户想要一首诗。我需要想。\n\n用户说不能用逗号，我应该用句号。",
}
REPLIES = {
    "a reply": "Bonjour et salut.",
    "nothing": "",
    "a reply after a thought": "Okay, the user wants two words in French. Let me think.\n\n"
    "Bonjour et salut.",
    "a reply in the last sentence": "Okay, the user wants two words. Let me think. Salut.",
    "a reply between thoughts": "Okay, the user wants two words.\n\n* Bonjour\n* Salut\n\n"
    "I think the user will like these.",
    "one that speaks to the user": "Okay, let me help you with that. I should say that I need to "
    "know more. Maybe you could tell me what you need to write?",
    "a diary": "Okay, so I need to talk about today. I should have called her.\n\n"
    "Maybe I could have been kinder. I think I will write to her.",
    "a letter": "First, I must apologise. I should have told you. I will make it up to you.",
    "a story about users": "The app opens. The user wants to pay. I need to sign in, he thinks.",
    "an essay about users": "The user experience matters. The user wants it simple.",
    "an essay about users in Chinese": "用户体验很重要。好的，用户会说。",
    "a reply after a thought in Chinese": "好的，用户想要一首诗。我需要想一想。\n\n春眠不觉晓。",
}


@pytest.mark.parametrize("name", ALONE)
def test_thoughts_from_end_to_end(name: str) -> None:
    assert is_thought_alone(ALONE[name]) and spoken_part(ALONE[name]) == ""
    assert verify(ALONE[name], GOLD, rules=IFEVAL).verdict == "no_answer"


@pytest.mark.parametrize("name", REPLIES)
def test_what_may_be_a_reply_is_one(name: str) -> None:
    assert not is_thought_alone(REPLIES[name])
    assert spoken_part(REPLIES[name]) == final_part(REPLIES[name])


def test_a_reply_after_a_thought_without_tags_is_checked_as_a_whole() -> None:
    found = verify(REPLIES["a reply after a thought"], GOLD, rules=IFEVAL)
    assert (found.verdict, found.details["strict"]) == ("wrong", [False])  # it has a comma


@given(st.text() | st.text("Okay, the user\n.!?等。 \x1c\u2028", max_size=300))
def test_any_text_is_read(text: str) -> None:
    for said in (text, f"Okay, the user {text}", f"好的，用户{text}"):
        assert spoken_part(said) in ("", final_part(said))
        assert not (is_thought_alone(said) and is_thought_alone(f"{said}\n\nBonjour."))


def rows(*names: str) -> list[dict[str, Any]]:
    path = DATA.joinpath(*names)
    if not path.is_file():
        pytest.skip("the data are not beside the repository")
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


def test_no_real_answer_is_taken_for_a_thought() -> None:
    replies = [row["response"] for row in rows("calibration", "ifeval_gpt4.jsonl")]
    plans = rows("blocksworld_outputs", "outputs.jsonl.gz")
    replies += [row["response"] for row in plans]
    replies += [final_part(row["output"]) for row in rows("long_cot_outputs", "outputs.jsonl.gz")]
    assert len(replies) == 140 + 599 + 820
    assert not any(map(is_thought_alone, replies))
