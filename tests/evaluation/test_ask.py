"""Questions put to a scripted student: tries, turns, trees; what is sent and what is kept."""

from pathlib import Path
from typing import Any

import pytest

from marco.driver.scheduler import Scheduler
from marco.engines.prompts import ChatTokenizer
from marco.engines.protocol import Completion, Request, Sampling
from marco.engines.scripted import ScriptedEngine
from marco.evaluation.ask import STUDENT, Question, Replies, converse
from marco.evaluation.start import question_starter
from marco.tasks.problem import Problem

from ..test_config import checked

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=9)


@pytest.fixture(scope="module")
def chat(embedded_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(embedded_folder)


def asked(question: Question, script: Any, start: Any) -> tuple[Replies, list[Request]]:
    engine = ScriptedEngine(script)
    walks = Scheduler(start, {STUDENT: engine}).run([(0, question)], on_response=lambda *_: None)
    [(_, replies)] = walks
    return replies, engine.requests


def words(text: str) -> Completion:
    return Completion(text=text, tokens=len(text.split()), finish="stop")


def test_each_try_is_a_conversation_with_the_students_own_replies(chat: ChatTokenizer) -> None:
    last = Problem(id="a", problem="And then?", answer="3")
    first = Problem(id="a", problem="What is it?", answer="1", follow_ups=(last,))
    question = Question(task="t", problem=first)

    def script(request: Request, _: int) -> Completion:
        return words(f"said <|im_end|> {request.key}")

    def start(question: Question) -> Any:
        return converse(question, shots=(), tokenizer=chat, sampling=GREEDY, tries=2)

    replies, requests = asked(question, script, start)
    assert [(r.attempt, r.turn, r.text) for r in replies.replies] == [
        (0, 1, "said <|im_end|> t/a/0/1"),
        (0, 2, "said <|im_end|> t/a/0/2"),
        (1, 1, "said <|im_end|> t/a/1/1"),
        (1, 2, "said <|im_end|> t/a/1/2"),
    ]
    assert [r.spent for r in replies.replies] == [3, 9, 6, 12]
    assert replies.usage == {"completion_tokens": 12}
    assert {request.problem for request in requests} == {question.id}
    opening = chat.prompt([{"role": "user", "content": "What is it?"}])
    assert requests[0].prompt_ids == requests[1].prompt_ids == opening
    for attempt, request in enumerate(requests[2:]):
        text = chat.tokenizer.decode(request.prompt_ids)
        assert text.count("What is it?") == text.count("And then?") == 1
        assert f"t/a/{attempt}/1" in text and f"t/a/{1 - attempt}/1" not in text
        # What the student wrote is text: the control tokens are those of the template's messages.
        ends = request.prompt_ids.count(chat.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        assert ends == opening.count(chat.tokenizer.convert_tokens_to_ids("<|im_end|>")) + 2
    assert Replies.from_json(replies.to_json()) == replies


def trees(embedded_folder: Path, script: Any, *, tries: int, gold: str = "5", **search: Any) -> Any:
    config = checked("decoding=mcts", f"decoding.tries={tries}", name="evaluate")
    sections = config.model_dump(mode="json")
    checkpoint = {"model": str(embedded_folder), "temperature": 0.7, "top_p": 1.0, "engine": {}}
    sections["models"] = {
        "checkpoints": {STUDENT: checkpoint},
        "roles": dict.fromkeys(sections["kinds"], STUDENT),
    }
    sections["tasks"] = [sections["task"]]
    sections["decoding"]["search"] |= search
    start, paths = question_starter(sections, embedded_folder.parent)
    assert paths == {STUDENT: embedded_folder}
    problem = Problem(id="a", problem="What is 2 + 3?", answer=gold)
    return asked(Question(task="arithmetic", problem=problem), script, start)


def drawn(request: Request, sample: int) -> Completion:
    number = sum(map(ord, f"{request.key}/{sample}")) % 4
    return words(f" {number}" if request.kind == "answer" else f" so {request.key} {sample}")


@pytest.mark.parametrize("tries", [1, 3, 40])
def test_a_tree_gives_as_many_tries_as_were_asked_for(embedded_folder: Path, tries: int) -> None:
    replies, requests = trees(embedded_folder, drawn, tries=tries, max_nodes=40)
    assert [reply.attempt for reply in replies.replies] == list(range(tries))
    assert all(reply.text.endswith("</answer>\n") for reply in replies.replies)
    spent = [reply.spent for reply in replies.replies]
    assert spent == sorted(spent) and spent[-1] <= replies.usage["completion_tokens"]
    assert len({request.key for request in requests}) == len(requests)
    # The first tree bears the question's own name, by which its journal is found again.
    assert requests[0].problem == "arithmetic/a"
    if tries == 40:
        assert {request.problem for request in requests} > {"arithmetic/a"}
        assert len({reply.text for reply in replies.replies}) > 30


def test_the_search_never_sees_the_gold_answer(embedded_folder: Path) -> None:
    """Whatever is gold, the same requests and the same tries."""
    made = [trees(embedded_folder, drawn, tries=8, gold=gold) for gold in ("0", "1", "99")]
    assert made[0] == made[1] == made[2]


def test_a_tree_that_writes_no_chain_is_a_try_that_was_cut_off(embedded_folder: Path) -> None:
    replies, _ = trees(embedded_folder, drawn, tries=2, max_nodes=2)
    assert [(r.text, r.finish) for r in replies.replies] == [("", "length")] * 2
