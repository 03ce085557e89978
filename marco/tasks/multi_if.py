"""multi_if: conversations of up to three turns in eight languages (arXiv 2410.15553).

Sample: `{"key": "7:1:en", "language": "English", "turn_1_prompt":
"{\\"role\\": \\"user\\", \\"content\\": \\"Describe a lighthouse without commas.\\"}",
"turn_1_instruction_id_list": "[\\"punctuation:no_comma\\"]", "turn_1_kwargs": "[\\"{}\\"]",
"turn_2_prompt": …}`

- Prompt: each turn's bare text; the model's own replies lie between the turns. Shots: none.
- Answer: what a reply says outside its thoughts. It is correct where it follows every instruction
  of its turn strictly; the lists hold those of the turns before, too. The rules are IFEval's but
  for words, sentences and quotes (docs/tasks/instructions.md).
- Metric: the mean of the four accuracies for each turn and language, then of those (`official`);
  the groups `zh`, `en` and `other`; the no-answer ratio. Source: the hub's `facebook/Multi-IF`, or
  a local CSV or JSON Lines file. It has a test split only.
- Thirteen conversations have no third turn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from marco.errors import UserError
from marco.tasks.files import id_of, text_of
from marco.tasks.instructions.figures import by_turn_and_language
from marco.tasks.instructions.grading import read_json
from marco.tasks.instructions.rules import MULTI_IF
from marco.tasks.instructions.task import InstructionConfig, InstructionTask
from marco.tasks.problem import Problem

TURNS = (1, 2, 3)
NO_TURN = (None, "", "None")  # how the published tables write a turn that is not there


class MultiIFConfig(InstructionConfig, frozen=True):
    """Where Multi-IF's problems come from, and how many of them are taken (null: all)."""

    name: Literal["multi_if"]


class MultiIF(InstructionTask):
    """Instructions over several turns."""

    rules = MULTI_IF

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        where = f"{source}, line {number}"
        if row.get("turn_1_prompt") is None and row.get("answer") is not None:
            return Problem(
                id=id_of(row, "id") or f"multi_if-{number - 1}",
                problem=text_of(row, ("problem",), number, source),
                answer=self.plain_gold(row, where),
                group=row.get("group"),
            )
        id = text_of(row, ("key",), number, source)
        language = text_of(row, ("language",), number, source)
        there = [turn for turn in TURNS if row.get(f"turn_{turn}_prompt") not in NO_TURN]
        if there != list(TURNS[: len(there)]) or not there:
            raise UserError(f"{where}: turns {there} have a `turn_N_prompt`, expected 1, 2 and 3")
        texts = {turn: _user_text(row, turn, where) for turn in there}
        golds = {turn: self._gold(row, turn, where) for turn in there}
        return Problem(
            id=id,
            problem=texts[1],
            answer=golds[1],
            group=language,
            follow_ups=tuple(
                Problem(id=id, problem=texts[turn], answer=golds[turn], group=language)
                for turn in there[1:]
            ),
        )

    def figures(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The official accuracies by turn and language, and their means."""
        return by_turn_and_language(samples)

    def _gold(self, row: Mapping[str, Any], turn: int, where: str) -> str:
        where = f"{where}, turn {turn}"
        ids = read_json(row.get(f"turn_{turn}_instruction_id_list"), where)
        return self.gold_of(ids, read_json(row.get(f"turn_{turn}_kwargs"), where), where)


def _user_text(row: Mapping[str, Any], turn: int, where: str) -> str:
    message = read_json(row[f"turn_{turn}_prompt"], where)
    text = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: `turn_{turn}_prompt` is no message with a `content`")
    return text
