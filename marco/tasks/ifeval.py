"""ifeval: English prompts with instructions that a program can check (arXiv 2311.07911).

Sample: `{"key": 7, "prompt": "Describe a lighthouse without commas, in fewer than 40 words.",
"instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
"kwargs": [{}, {"relation": "less than", "num_words": 40}]}`

- Prompt: the bare prompt as one user turn. Shots: none.
- Answer: what a response says outside its thoughts, as a whole. It is correct where it follows
  every instruction strictly; the rules, with the official checkers' oddities, are in
  docs/tasks/instructions.md.
- Metric: prompt and instruction accuracy, strict and loose, and the mean of the four (`official`);
  beside them the no-answer ratio, of responses that say nothing. Source: the hub's
  `google/IFEval`, or a local JSON Lines file. It has a test split only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from marco.tasks.files import id_of, text_of
from marco.tasks.instructions.figures import accuracies
from marco.tasks.instructions.rules import IFEVAL
from marco.tasks.instructions.task import InstructionConfig, InstructionTask
from marco.tasks.problem import Problem


class IFEvalConfig(InstructionConfig, frozen=True):
    """Where IFEval's problems come from, and how many of them are taken (null: all)."""

    name: Literal["ifeval"]


class IFEval(InstructionTask):
    """Instructions in one turn."""

    rules = IFEVAL

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        where = f"{source}, line {number}"
        ids = row.get("instruction_id_list")
        return Problem(
            id=id_of(row, "key", "id") or f"ifeval-{number - 1}",
            problem=text_of(row, ("prompt", "problem"), number, source),
            answer=self.plain_gold(row, where)
            if ids is None
            else self.gold_of(ids, row.get("kwargs"), where),
        )

    def figures(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The four official accuracies, and their mean."""
        return dict(accuracies(samples))
