"""How a problem is put to a student: a walk that gathers its tries, turn by turn or as a tree."""

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from marco.engines.prompts import ChatTokenizer, Message
from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.evaluation.config import STOPPING
from marco.search.start import SearchStart
from marco.tasks.problem import Problem
from marco.tasks.task import Task
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

STUDENT = "student"  # the name of the one model that is asked


@dataclass(frozen=True, kw_only=True)
class Question:
    """A problem of one of the tasks; `id` tells problems of different tasks apart."""

    task: str
    problem: Problem

    @property
    def id(self) -> str:
        return f"{self.task}/{self.problem.id}"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a student says in a try (from 0 on) and turn (from 1 on).

    `spent` are the tokens generated for the problem until the reply was there; of a tree, those
    that lead to other replies count too. None where replies were made elsewhere.
    """

    text: str
    finish: str | None
    tokens: int | None
    attempt: int = 0
    turn: int = 1
    spent: int | None = None


@dataclass(kw_only=True)
class Replies:
    """All that a student says to a problem, the turns of a try one after the other."""

    id: str
    replies: list[Reply] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=lambda: {"completion_tokens": 0})
    status: str = "answered"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Replies":
        values = json.loads(line)
        return cls(**values | {"replies": [Reply(**reply) for reply in values["replies"]]})


Asking = Generator[list[Request], list[Response], Replies]


def converse(
    question: Question,
    *,
    shots: Sequence[Message],
    tokenizer: ChatTokenizer,
    sampling: Sampling,
    tries: int,
) -> Asking:
    """Every try is a conversation of its own: the user's turns, and the student's own replies."""
    found = Replies(id=question.id)
    talks: list[list[Message]] = [list(shots) for _ in range(tries)]
    problem = question.problem
    for turn, asked in enumerate((problem, *problem.follow_ups), 1):
        for talk in talks:
            talk.append({"role": "user", "content": tokenizer.as_text(asked.problem)})
        responses = yield [
            Request(
                key=f"{question.id}/{attempt}/{turn}",
                problem=question.id,
                model=STUDENT,
                kind="chain",
                prompt_ids=tokenizer.prompt(talk),
                n=1,
                stop=(),
                sampling=sampling,
            )
            for attempt, talk in enumerate(talks)
        ]
        for attempt, (talk, response) in enumerate(zip(talks, responses, strict=True)):
            [said] = response.completions
            talk.append({"role": "assistant", "content": tokenizer.as_text(said.text)})
            found.usage["completion_tokens"] += said.tokens
            found.replies.append(_reply(said, attempt, turn, found))
    found.replies.sort(key=lambda reply: (reply.attempt, reply.turn))
    return found


def _reply(said: Completion, attempt: int, turn: int, found: Replies) -> Reply:
    return Reply(
        text=said.text,
        finish=said.finish,
        tokens=said.tokens,
        attempt=attempt,
        turn=turn,
        spent=found.usage["completion_tokens"],
    )


def search(
    question: Question, *, begin: SearchStart, changes: Mapping[str, Any], tries: int
) -> Asking:
    """The chains of a tree as tries, in the order in which they end.

    The reward is agreement among the answers; the gold answer is not looked at. A tree that holds
    fewer chains than `tries` is followed by another. Each tree spends what `begin` and `changes`
    allow; one that ends without a chain counts as a try that was cut off.
    """
    found = Replies(id=question.id)
    number = 0
    while len(found.replies) < tries:
        name = f"{question.id}\x1f{number}" if number else question.id  # no id holds that
        walk = begin.search(
            replace(question.problem, id=name, answer=""),
            verify=Agreement(begin.task, question.problem),
            **changes,
            **_until(tries - len(found.replies)),
        )
        tree = yield from walk.run()
        before = found.usage["completion_tokens"]
        found.usage["completion_tokens"] += tree.usage["completion_tokens"]
        for node, spent in walk.ended:
            path = tree.path(node.id)
            found.replies.append(
                Reply(
                    text="".join(passed.text for passed in path),
                    finish="length" if node.finish == "length" else "stop",
                    tokens=sum(passed.tokens for passed in path),
                    attempt=len(found.replies),
                    spent=before + spent,
                )
            )
        if not walk.ended:
            spent = found.usage["completion_tokens"]
            attempt = len(found.replies)
            found.replies.append(
                Reply(text="", finish="length", tokens=0, attempt=attempt, spent=spent)
            )
        number += 1
    return found


def _until(tries: int) -> dict[str, Any]:
    """Stopping rules that ask for a number of chains, and for nothing else."""
    never = tries + 1
    values = ("distinct", tries, never, 0, never, never, never)
    return dict(zip(STOPPING, values, strict=True))


class Agreement:
    """A reward that knows no gold answer: right is what most answers of the tree say so far."""

    def __init__(self, task: Task, problem: Problem) -> None:
        self.task, self.problem = task, problem
        self.counts: Counter[str] = Counter()

    def __call__(self, chain: str, _: Problem) -> Verdict:
        answer = self.task.answer_of(chain, self.problem)
        if answer is None:
            return Verdict(NO_ANSWER, None, "no answer to agree with")
        self.counts[answer] += 1
        agrees = self.counts[answer] == max(self.counts.values())
        return Verdict(CORRECT if agrees else WRONG, answer, "agreement")
