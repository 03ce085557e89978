"""Training examples: token ids of one dataset row each, read from a dataset folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from marco.engines.prompts import ChatTokenizer
from marco.errors import UserError
from marco.training.tree_batch import TokenChain

EMPTY = "the dataset is empty; build it from more trees"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row: a prompt with one completion (SFT), or with a chosen and a rejected one (a pair).

    `row` is its place in the dataset; `completions` are token ids that end in the end-of-sequence
    token, the chosen one first.
    """

    row: int
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def chains(self) -> list[TokenChain]:
        return [(self.prompt, completion) for completion in self.completions]

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest completion."""
        return len(self.prompt) + max(map(len, self.completions))


@dataclass(frozen=True, kw_only=True)
class ExampleSet:
    """The examples of a dataset in its order, without `dropped` ones that were too long."""

    examples: tuple[Example, ...]
    dropped: int
    fingerprint: str

    @property
    def is_pairs(self) -> bool:
        return len(self.examples[0].completions) == 2


def read_examples(folder: Path, tokenizer: Any, *, max_tokens: int) -> ExampleSet:
    """Tokenize the dataset in `folder` (`completion`, or `chosen` and `rejected`; see DESIGN).

    Chains of more than `max_tokens` tokens, prompt included, are dropped with their row. The
    fingerprint covers every token id. Raises `UserError` for a folder that is no such dataset, a
    tokenizer without chat template or end token, and when nothing is left.
    """
    chat = ChatTokenizer(tokenizer, source=tokenizer.name_or_path)
    rows, columns = _read_rows(folder)
    kept, dropped, digest = [], 0, hashlib.sha256()
    for i, row in enumerate(rows):
        prompt = chat.prompt(row["prompt"])
        completions = tuple(
            (*chat.encode(_text(row[column])), chat.eos_token_id) for column in columns
        )
        example = Example(row=i, prompt=prompt, completions=completions)
        digest.update(json.dumps([prompt, completions]).encode())
        if example.longest > max_tokens:
            dropped += 1
        else:
            kept.append(example)
    if not kept:
        raise UserError(
            f"{folder}: no example is left to train on: {dropped} of {len(rows)} rows are longer "
            f"than max_tokens={max_tokens} (prompt and chain); raise trainer.max_tokens"
            if dropped
            else f"{folder}: {EMPTY}"
        )
    return ExampleSet(examples=tuple(kept), dropped=dropped, fingerprint=digest.hexdigest()[:16])


def by_prompt(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Groups of examples of one problem (they share tokens), in the order of their first row."""
    groups: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt, []).append(example)
    yield from groups.values()


def _read_rows(folder: Path) -> tuple[list[Mapping[str, Any]], list[str]]:
    try:
        data = datasets.load_from_disk(str(folder / "dataset"))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: holds no dataset folder named `dataset`") from error
    except IndexError as error:
        # The library saves a dataset without rows as no shard at all, and cannot read that again.
        raise UserError(f"{folder}: {EMPTY}") from error
    if not isinstance(data, datasets.Dataset):
        raise UserError(f"{folder}: holds a dataset with splits; expected one plain dataset")
    for columns in (["chosen", "rejected"], ["completion"]):
        if {"prompt", *columns} <= set(data.column_names):
            return data.select_columns(["prompt", *columns]).to_list(), columns
    raise UserError(
        f"{folder}: expected the columns prompt and completion, or prompt, chosen and rejected; "
        f"got {', '.join(data.column_names) or 'none'}"
    )


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise UserError("a completion must be a list of exactly one assistant message")
    return messages[0]["content"]
