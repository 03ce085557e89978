"""Training examples: token ids of one dataset row each, read from a dataset."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from marco.data.pairs import shared_prefix
from marco.engines.prompts import ChatTokenizer
from marco.errors import UserError
from marco.training.tree_batch import TokenChain

EMPTY = "the dataset is empty; build it from more trees"
SIDES = (("chosen", "rejected"), ("completion",))
FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row: a prompt with one completion (SFT), or with a chosen and a rejected one (a pair).

    `row` is its place in the dataset; `completions` are token ids that end in the end-of-sequence
    token, the chosen one first; `kinds` are the kinds of the nodes that their tokens come from,
    each with its count of tokens, empty where the dataset does not tell.
    """

    row: int
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    kinds: tuple[tuple[tuple[str, int], ...], ...]

    @cached_property
    def shared(self) -> int:
        """The tokens that all completions begin with (0 where there is just one)."""
        return shared_prefix(*self.completions) if len(self.completions) == 2 else 0

    def chains(self, skipped: Sequence[int] = (0, 0)) -> list[TokenChain]:
        """Its chains, without the log-probabilities of the first `skipped` tokens of each."""
        sides = zip(self.completions, skipped, strict=False)
        return [TokenChain(prompt=self.prompt, completion=c, skipped=s) for c, s in sides]

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


def read_examples(source: Path | str, tokenizer: Any, *, max_tokens: int) -> ExampleSet:
    """Tokenize a dataset with the columns `completion`, or `chosen` and `rejected`, and `prompt`.

    `source` is a folder of ours, one of `datasets.save_to_disk`, a JSON Lines or Parquet file, or a
    name on the hub (its split `train`). Prompts and completions are lists of messages, or texts,
    which are taken as they are, without a chat template; where there is no `prompt`, it is all
    messages before the last. Chains of more than `max_tokens` tokens, prompt included, are dropped
    with their row. The fingerprint covers every token id. Raises `UserError` for what is no such
    dataset, one made with another tokenizer, a tokenizer without chat template or end token, and
    when nothing is left.
    """
    chat = ChatTokenizer(tokenizer, source=tokenizer.name_or_path)
    rows, sides = _read_rows(source)
    kept, dropped, digest = [], 0, hashlib.sha256()
    for i, row in enumerate(rows):
        reader = _Reader(chat, f"{source}: row {i}", row)
        sections = [reader.completion(side) for side in sides]
        example = Example(
            row=i,
            prompt=reader.prompt(sides),
            completions=tuple(ids for ids, _ in sections),
            kinds=tuple(kinds for _, kinds in sections),
        )
        digest.update(json.dumps([example.prompt, example.completions]).encode())
        if example.longest > max_tokens:
            dropped += 1
        else:
            kept.append(example)
    if not kept:
        raise UserError(
            f"{source}: no example is left to train on: {dropped} of {len(rows)} rows are longer "
            f"than max_tokens={max_tokens} (prompt and chain); raise trainer.max_tokens"
            if dropped
            else f"{source}: {EMPTY}"
        )
    return ExampleSet(examples=tuple(kept), dropped=dropped, fingerprint=digest.hexdigest()[:16])


def read_problems(source: Path | str) -> list[str]:
    """The prompts of a dataset in words: what the person last said, or the text."""
    rows, sides = _read_rows(source)
    prompts = [row.get("prompt") or row[sides[0]][:-1] for row in rows]
    return [p if isinstance(p, str) else p[-1]["content"] for p in prompts if p]


def by_prompt(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Groups of examples of one problem (they share tokens), in the order of their first row."""
    groups: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt, []).append(example)
    yield from groups.values()


@dataclass(frozen=True)
class _Reader:
    """One row in token ids."""

    chat: ChatTokenizer
    where: str
    row: Mapping[str, Any]

    def prompt(self, sides: Sequence[str]) -> tuple[int, ...]:
        prompt = self.row.get("prompt")
        if prompt is None:
            prompts = [list(self._messages(side)[:-1]) for side in sides]
            if any(other != prompts[0] for other in prompts):
                raise UserError(f"{self.where}: chosen and rejected begin with other messages")
            prompt = prompts[0]
        if isinstance(prompt, str):
            # Some tokenizers begin every text with a token of their own.
            begin = self.chat.tokenizer("")["input_ids"]
            begin = [id for id in begin if id != self.chat.eos_token_id]
            return (*begin, *self.chat.encode(prompt))
        if not prompt:
            raise UserError(f"{self.where}: has no prompt")
        _check_messages(f"{self.where}: prompt", prompt)
        return self.chat.prompt(prompt)

    def completion(self, side: str) -> tuple[tuple[int, ...], tuple[tuple[str, int], ...]]:
        """Its ids, with the end token, and the kinds of its nodes with their counts of tokens."""
        text, chat = self._text(side), self.chat
        column = "parts" if side == "completion" else f"{side}_parts"
        parts, ids, kinds, start = self.row.get(column) or [], [], [], 0
        for part in parts:
            own = chat.encode(text[start : start + part["characters"]])
            start += part["characters"]
            ids += own
            kinds.append((part["kind"], len(own)))
        if parts and start != len(text):
            raise UserError(f"{self.where}: {column} tell of {start} characters, not {len(text)}")
        if kinds:
            kinds[-1] = (kinds[-1][0], kinds[-1][1] + 1)  # the end token
        else:
            ids = chat.encode(text)
        told = self.row.get("tokens" if side == "completion" else f"{side}_tokens")
        # A count beside `parts`, be they none, is ours; another dataset's may be of anything.
        if column in self.row and told is not None and told != len(ids):
            raise UserError(
                f"{self.where}: its {side} chain was counted as {told} tokens, and is {len(ids)} "
                f"for {chat.source}: the dataset was made with another tokenizer; make it for this "
                "student (student=...)"
            )
        return (*ids, chat.eos_token_id), tuple(kinds)

    def _messages(self, side: str) -> Sequence[dict[str, str]]:
        if isinstance(self.row[side], str):
            raise UserError(f"{self.where}: a text needs a prompt column, for where {side} begins")
        return self.row[side]

    def _text(self, side: str) -> str:
        if isinstance(self.row[side], str):
            return self.row[side]
        messages = self._messages(side)
        _check_messages(f"{self.where}: {side}", messages)
        if self.row.get("prompt") is not None and len(messages) != 1:
            raise UserError(f"{self.where}: {side} must be exactly one assistant message")
        if not messages or messages[-1]["role"] != "assistant":
            raise UserError(f"{self.where}: {side} must end in an assistant message")
        return messages[-1]["content"]


def _check_messages(where: str, messages: Any) -> None:
    fine = isinstance(messages, list) and all(
        isinstance(message, Mapping) and isinstance(message.get(name), str)
        for message in messages
        for name in ("role", "content")
    )
    if not fine:
        raise UserError(f"{where}: expected a text, or messages with role and content")


def _read_rows(source: Path | str) -> tuple[list[Mapping[str, Any]], Sequence[str]]:
    try:
        data = _load(source)
    except IndexError as error:
        # The library saves a dataset without rows as no shard at all, and cannot read that again.
        raise UserError(f"{source}: {EMPTY}") from error
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: holds no dataset that can be read: {reason}") from error
    if not isinstance(data, datasets.Dataset):
        raise UserError(f"{source}: holds a dataset with splits; expected one plain dataset")
    for sides in SIDES:
        if set(sides) <= set(data.column_names):
            return data.to_list(), sides
    raise UserError(
        f"{source}: expected the columns prompt and completion, or prompt, chosen and rejected; "
        f"got {', '.join(data.column_names) or 'none'}"
    )


def _load(source: Path | str) -> Any:
    path = Path(source)
    if path.is_dir():
        inner = path / "dataset"
        return datasets.load_from_disk(str(inner if inner.is_dir() else path))
    if path.is_file():
        if path.suffix not in FORMATS:
            raise ValueError(f"expected one of {', '.join(FORMATS)}")
        return datasets.load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
    return datasets.load_dataset(str(source), split="train")
