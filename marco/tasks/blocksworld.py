"""blocksworld: plans that move blocks into a wanted order (PlanBench, arXiv 2206.10498).

Sample: `{"id": "x", "pddl": "(define … (:objects a b) (:init (ontable a) (clear a) (ontable b)
(clear b) (handempty)) (:goal (and (on a b))))", "query_zero_shot": "… Give me a plan."}`; the
response `[PLAN] pick up the red block\\nstack the red block on top of the blue block [PLAN END]`

- Prompt: PlanBench's zero-shot query as one user turn. Shots: none for the student.
- Answer: actions in PlanBench's wording; `marco.tasks.blocks` has the rules. A plan is right if
  every action is legal and the goal holds at its end; it need not be a shortest one.
- Metric: accuracy, and no-answer ratio. A response without any action is no answer.
- Source: a local JSON Lines file with `id`, `pddl`, `query_zero_shot`, or with `id`, `problem` and
  the PDDL as `answer`. The hub is no source for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from marco.errors import UserError
from marco.tasks.answers import final_part
from marco.tasks.blocks import execute, read_instance, read_plan, write_instance
from marco.tasks.examples import Example
from marco.tasks.files import id_of, text_of
from marco.tasks.problem import Problem, Split
from marco.tasks.task import Task, share_out
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict


class BlocksworldConfig(BaseModel):
    """Where the problems come from, and how many of them are taken (null: all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["blocksworld"]
    train_file: str | None
    test_file: str | None
    train: PositiveInt | None
    validation: PositiveInt
    test: PositiveInt | None
    shots: NonNegativeInt
    response_tokens: PositiveInt


class Blocksworld(Task):
    """Planning with coloured blocks."""

    def __init__(self, config: BlocksworldConfig) -> None:
        self.config = config
        self.name = config.name

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split; UserError for a missing file or a malformed line."""
        if split == "test":
            if self.config.test_file is None:
                raise self.no_split("test")
            return self.read(Path(self.config.test_file))[: self.config.test]
        if self.config.train_file is None:
            raise self.no_split("train")
        rows = self.read(Path(self.config.train_file))
        return share_out(rows, split, validation=self.config.validation, train=self.config.train)

    def examples(self, problem: Problem) -> Sequence[Example]:
        """Worked examples, the same for every problem."""
        return EXAMPLES[: self.config.shots]

    def verify(self, response: str, problem: Problem) -> Verdict:
        plan = read_plan(final_part(response))
        if plan.broken is not None:
            return Verdict(WRONG, str(plan), f"{plan.broken} is no action")
        if not plan.actions:
            return Verdict(NO_ANSWER, None, "no action")
        reached, why = execute(plan.actions, read_instance(problem.answer))
        return Verdict(CORRECT if reached else WRONG, str(plan), why)

    def parse(self, row: Mapping[str, Any], number: int, source: str) -> Problem:
        pddl = text_of(row, ("pddl", "answer"), number, source)
        try:
            instance = read_instance(pddl)
        except UserError as error:
            raise UserError(f"{source}, line {number}: {error}") from error
        return Problem(
            id=id_of(row, "id") or f"blocksworld-{number - 1}",
            problem=text_of(row, ("query_zero_shot", "problem"), number, source),
            answer=write_instance(instance),
        )


def _problem(state: str, goal: str) -> str:
    return (
        "A hand moves coloured blocks, one at a time. It can pick up a clear block from the table, "
        "unstack a clear block from on top of another block, put down the block it holds, or stack "
        "it on top of a clear block. A block is clear if nothing is on top of it. To pick up or "
        f"unstack, the hand must be empty. Now it is empty, {state}. The goal: {goal}. Tell the "
        "plan, one action in a line."
    )


# Written for this project, with four blocks: any problem of three blocks is one of the benchmark's
# but for the colours, and these are not.
EXAMPLES: tuple[Example, ...] = (
    Example(
        problem=_problem(
            "the white block is on top of the magenta block, the red block is on top of the yellow "
            "block, and the magenta block and the yellow block are on the table",
            "the magenta block is on top of the white block",
        ),
        sub_task="I need white off magenta, and then magenta on white.",
        hypothesis="The red block and the yellow block can stay where they are.",
        steps=(
            "White is on magenta, so I unstack white from magenta. My hand must be empty for the "
            "next move, so I put down white. Now magenta is clear and on the table.",
            "I pick up magenta. White is clear, so I stack magenta on top of white.",
        ),
        double_check="Each time I take a block, it is clear and my hand is empty. It holds.",
        answer="[PLAN]\nunstack the white block from on top of the magenta block\n"
        "put down the white block\npick up the magenta block\n"
        "stack the magenta block on top of the white block\n[PLAN END]",
    ),
    Example(
        problem=_problem(
            "the yellow block is on top of the white block, and the white block, the magenta block "
            "and the blue block are on the table",
            "the yellow block is on top of the magenta block and the white block is on top of the "
            "yellow block",
        ),
        sub_task="I need a tower with magenta at the bottom, yellow on it, and white at the top.",
        hypothesis="I build it from below, so yellow moves before white.",
        mistaken=(
            "White goes on yellow, so I pick up white and stack it on yellow.",
            "Yellow goes on magenta, so I pick up yellow and stack it on magenta.",
        ),
        reflection="White has yellow on top of it at the start: it is not clear, and I cannot "
        "pick it up first.",
        reclarify="Yellow is on white now. It must go to magenta before white can go on it.",
        steps=(
            "I unstack yellow from white. Magenta is clear, so I stack yellow on magenta at once.",
            "Now white is clear and on the table: I pick up white and stack it on yellow.",
        ),
        double_check="Yellow is clear when I unstack it, and magenta is clear below. It holds.",
        answer="[PLAN]\nunstack the yellow block from on top of the white block\n"
        "stack the yellow block on top of the magenta block\npick up the white block\n"
        "stack the white block on top of the yellow block\n[PLAN END]",
    ),
)
