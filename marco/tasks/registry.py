"""The tasks by name. A task serves the search's reward, the evaluation and the grading alike."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import Field

from marco.tasks.arithmetic import Arithmetic, ArithmeticConfig
from marco.tasks.examples import Example
from marco.tasks.gsm8k import GSM8K, GSM8KConfig
from marco.tasks.problem import Problem, Split
from marco.tasks.verdict import Verdict

TaskConfig = Annotated[ArithmeticConfig | GSM8KConfig, Field(discriminator="name")]


class Task(Protocol):
    """Problems by split, and the verdict on a response."""

    name: str

    def problems(self, split: Split) -> list[Problem]: ...
    def examples(self, problem: Problem) -> Sequence[Example]: ...
    def verify(self, response: str, problem: Problem) -> Verdict: ...


def make_task(config: ArithmeticConfig | GSM8KConfig) -> Task:
    return Arithmetic(config) if isinstance(config, ArithmeticConfig) else GSM8K(config)
