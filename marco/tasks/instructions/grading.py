"""From a row's instructions to a gold answer, and from a response to a verdict on them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marco.errors import UserError
from marco.tasks.instructions.rules import Checker, Rules, checked_kwargs
from marco.tasks.untagged import spoken_part
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

SHOWN = 200  # characters of a text that a verdict shows


def gold_of(ids: Any, kwargs: Any, *, rules: Rules, where: str) -> str:
    """Instructions as canonical JSON text: a list of `id` and `kwargs`, enough to verify by.

    `ids` are as many as `kwargs`, whose items may be JSON text. UserError says `where` they are
    not, and what is wrong with one.
    """
    if not isinstance(ids, Sequence) or isinstance(ids, str) or not ids:
        raise UserError(f"{where}: no `instruction_id_list`, a list of instruction ids")
    if not isinstance(kwargs, Sequence) or isinstance(kwargs, str) or len(kwargs) != len(ids):
        raise UserError(f"{where}: `kwargs` is no list of {len(ids)}, one for each instruction")
    instructions = []
    for id, given in zip(ids, kwargs, strict=True):
        given = read_json(given, where) or {}
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: the kwargs of {id} are {given!r:.60}, expected an object")
        instructions.append({"id": id, "kwargs": checked_kwargs(str(id), given, rules, where)})
    return json.dumps(instructions, ensure_ascii=False, sort_keys=True)


def read_json(value: Any, where: str) -> Any:
    """What JSON text says; anything else as it is. UserError says `where` it is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {value[:60]!r}") from error


def verify(response: str, gold: str, *, rules: Rules) -> Verdict:
    """Correct where what the response says outside its thoughts follows every instruction strictly.

    A response that says nothing follows none. `details` hold the ids of the `instructions`, and
    for each whether it is followed, `strict` and `loose`.
    """
    instructions = json.loads(gold)
    ids = [instruction["id"] for instruction in instructions]
    text = spoken_part(response)
    if not text:
        details = {"instructions": ids, "strict": [False] * len(ids), "loose": [False] * len(ids)}
        return Verdict(NO_ANSWER, None, "nothing is said outside thoughts", details=details)
    variants = loose_variants(text)
    strict, loose = [], []
    for instruction in instructions:
        check, kwargs = rules[instruction["id"]], instruction["kwargs"]
        strict.append(check(text, **kwargs))
        loose.append(strict[-1] or _any_follows(variants, check, kwargs))
    failed = [id for id, is_followed in zip(ids, strict, strict=True) if not is_followed]
    why = f"does not follow {', '.join(failed)}" if failed else f"follows all {len(ids)}"
    return Verdict(
        WRONG if failed else CORRECT,
        shortened(text),
        why,
        details={"instructions": ids, "strict": strict, "loose": loose},
    )


def shortened(text: str) -> str:
    """The start of a text."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def loose_variants(text: str) -> list[str]:
    """What the loose verdict may take for the text: without its first line, its last, its stars.

    Each combination once, without those that are blank and without the text as it is.
    """
    lines = text.split("\n")
    parts = [lines[1:], lines[:-1], lines[1:-1]]
    whole = [text, *("\n".join(part).strip() for part in parts)]
    variants = dict.fromkeys([*whole, *(part.replace("*", "") for part in whole)])
    return [variant for variant in variants if variant != text and variant.strip()]


def _any_follows(variants: Sequence[str], check: Checker, kwargs: Mapping[str, Any]) -> bool:
    return any(check(variant, **kwargs) for variant in variants)
