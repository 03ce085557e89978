"""The tasks by name."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from marco.tasks.aime import AIME, AIMEConfig
from marco.tasks.arithmetic import Arithmetic, ArithmeticConfig
from marco.tasks.blocksworld import Blocksworld, BlocksworldConfig
from marco.tasks.gsm8k import GSM8K, GSM8KConfig
from marco.tasks.ifeval import IFEval, IFEvalConfig
from marco.tasks.letter_count import LetterCount, LetterCountConfig
from marco.tasks.math import Math, MathConfig
from marco.tasks.multi_if import MultiIF, MultiIFConfig
from marco.tasks.task import Task

AnyTask = (
    ArithmeticConfig
    | LetterCountConfig
    | GSM8KConfig
    | MathConfig
    | AIMEConfig
    | BlocksworldConfig
    | IFEvalConfig
    | MultiIFConfig
)
TaskConfig = Annotated[AnyTask, Field(discriminator="name")]
TASKS: Mapping[str, Callable[[Any], Task]] = {
    "arithmetic": Arithmetic,
    "letter_count": LetterCount,
    "gsm8k": GSM8K,
    "math": Math,
    "aime": AIME,
    "blocksworld": Blocksworld,
    "ifeval": IFEval,
    "multi_if": MultiIF,
}


def make_task(config: AnyTask) -> Task:
    return TASKS[config.name](config)
