"""Preference pairs as the page takes them: segments of text that say what the loss does there."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from marco.data.pairs import shared_prefix
from marco.errors import UserError
from marco.manifest import CONFIG, order_of, read_manifest
from marco.training.pairs_csv import FILE, read_pairs

MaskScope = Literal["none", "preference", "sft", "all"]
COMPARED_WORDS = 4000  # of both chains together; beyond that the difference is not marked
SIDES = ("chosen", "rejected")
Span = tuple[int, int]  # characters


def carrying(shared: int, scope: MaskScope) -> dict[str, int]:
    """The first token of a completion that each term counts, as `marco.training.data_module` does.

    `shared` are the tokens that both completions begin with. The SFT term is of the chosen one.
    With a loss of the margin alone, the shared tokens count in the preference term but cancel.
    """
    return {
        "preference": shared if scope in ("preference", "all") else 0,
        "sft": shared if scope in ("sft", "all") else 0,
    }


@dataclass(frozen=True)
class Tokens:
    """A completion's token ids, without the end token, and the characters of each."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]


class Tokenizer:
    """The tokenizer that a dataset was made with."""

    def __init__(self, model: Path | str) -> None:
        from marco.engines.prompts import ChatTokenizer

        self.chat = ChatTokenizer.load(model)

    def tokens(self, text: str, parts: Sequence[Mapping[str, Any]]) -> Tokens:
        """The tokens of a text, each of its parts by itself, as training has them."""
        ids: list[int] = []
        spans: list[Span] = []
        start = 0
        for length in [part["characters"] for part in parts] or [len(text)]:
            found = self.chat.tokenizer(
                text[start : start + length],
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
            )
            ids += found["input_ids"]
            spans += [(start + first, start + last) for first, last in found["offset_mapping"]]
            start += length
        return Tokens(tuple(ids), tuple(spans))


class Pairs:
    """A dataset of preference pairs, with the margins that students had on them."""

    def __init__(self, folder: Path, students: Sequence[Path]) -> None:
        self.folder, self.students = folder, students

    @cached_property
    def rows(self) -> Any:
        import datasets

        try:
            return datasets.load_from_disk(str(self.folder / "dataset"))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.folder}: no dataset that can be read: {reason}") from error

    @cached_property
    def ids(self) -> list[str]:
        """The tree of each pair."""
        return list(self.rows["id"])

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The one of the dataset's student; None where it is not to be had."""
        from marco.engines.registry import model_folder

        name = order_of(self.folder)["config"]["student"]
        try:
            folder = model_folder(name, cache=self.folder.parents[1] / "models", weights=False)
            return Tokenizer(folder)
        except (UserError, OSError):
            return None

    @cached_property
    def margins(self) -> dict[int, list[dict[str, Any]]]:
        """By row: what each student's training logged of it."""
        found: dict[int, list[dict[str, Any]]] = {}
        for student in self.students:
            try:
                lines = read_pairs(student)
            except UserError:  # the pairs can be shown without one student's margins
                continue
            for told in lines:
                row, step = int(told.pop("row")), int(told.pop("step"))
                found.setdefault(row, []).append({"student": student.name, "step": step, **told})
        return found

    def page(self, *, tree: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """How many pairs there are (of a tree, where one is named), and some of them."""
        numbers: Sequence[int] = range(len(self.ids))
        if tree:
            numbers = [row for row in numbers if self.ids[row] == tree]
        names = ("id", "chosen_tokens", "rejected_tokens", "shared_prefix_tokens", "bucket")
        rows = [(row, self.rows[row]) for row in numbers[offset : offset + limit]]
        listed = [{"row": row} | {name: values[name] for name in names} for row, values in rows]
        return len(numbers), [pair | {"margin_nats": self._margin(pair["row"])} for pair in listed]

    def _margin(self, row: int) -> float | None:
        """The last one that a student had on the row."""
        own = self.margins.get(row)
        return own[-1]["margin_nats"] if own else None

    def read(self, row: int, scope: MaskScope) -> dict[str, Any] | None:
        """A pair, its chains in segments; None beyond the last."""
        if not 0 <= row < len(self.ids):
            return None
        values = self.rows[row]
        texts = [values[side][-1]["content"] for side in SIDES]
        tokens = None
        if self.tokenizer is not None:
            parts = [values.get(f"{side}_parts") or [] for side in SIDES]
            tokens = [self.tokenizer.tokens(t, p) for t, p in zip(texts, parts, strict=True)]
        return {
            "row": row,
            "id": values["id"],
            "prompt": values["prompt"][-1]["content"],
            "scope": scope,
            "bucket": values["bucket"],
            "margins": self.margins.get(row, []),
            "has_tokens": tokens is not None,
            **_sides(texts, tokens, scope, values),
        }


def _sides(
    texts: Sequence[str],
    tokens: Sequence[Tokens] | None,
    scope: MaskScope,
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """Both chains: nodes, counts of tokens, and segments."""
    differing = _differing(*texts)
    shared = (
        values["shared_prefix_tokens"]
        if tokens is None
        else shared_prefix(tokens[0].ids, tokens[1].ids)
    )
    starts = carrying(shared, scope)
    sides = {}
    for i, side in enumerate(SIDES):
        text, count = texts[i], values[f"{side}_tokens"]
        own = starts if side == "chosen" else {"preference": starts["preference"]}
        if tokens is None:
            places = {term: 0 if not start else None for term, start in own.items()}
            prefix = len(_common(*texts))
        else:
            places = {term: _place(tokens[i], start, text) for term, start in own.items()}
            prefix = _place(tokens[i], shared, text)
        sides[side] = {
            "node": values[f"{side}_node"],
            "tokens": count,
            "shared_tokens": shared,
            # With the end token, which both terms count.
            "carrying_tokens": {term: count + 1 - start for term, start in own.items()},
            "segments": _segments(text, prefix, differing[i], places),
        }
    return sides


def _place(tokens: Tokens, token: int, text: str) -> int:
    """The character that a token begins with; the text's end for the end token."""
    return tokens.spans[token][0] if token < len(tokens.spans) else len(text)


def _common(left: str, right: str) -> str:
    return left[: shared_prefix([ord(c) for c in left], [ord(c) for c in right])]


def _differing(left: str, right: str) -> tuple[list[Span], list[Span]]:
    """The characters of each text that the other has no match for, word by word."""
    words = [list(re.finditer(r"\w+|\s+|[^\w\s]", text)) for text in (left, right)]
    if sum(map(len, words)) > COMPARED_WORDS:
        return [], []
    matcher = SequenceMatcher(None, *([m[0] for m in own] for own in words), autojunk=False)
    found: tuple[list[Span], list[Span]] = [], []
    for kind, *places in matcher.get_opcodes():
        if kind == "equal":
            continue
        for i, (first, last) in enumerate((places[:2], places[2:])):
            if first < last:
                found[i].append((words[i][first].start(), words[i][last - 1].end()))
    return found


def _segments(
    text: str, prefix: int, differing: Sequence[Span], places: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """The text cut where anything changes: whether it is shared, differs, and carries each loss.

    A term is None where it is not known for want of the tokenizer.
    """
    cuts = {0, len(text), prefix, *(place for place in places.values() if place is not None)}
    cuts |= {place for span in differing for place in span}
    ends = sorted(cuts)

    def told(first: int, last: int) -> Iterator[tuple[str, Any]]:
        yield "text", text[first:last]
        yield "shared", last <= prefix
        yield "differs", any(start <= first and last <= end for start, end in differing)
        for term, place in places.items():
            yield term, None if place is None else first >= place

    return [dict(told(*span)) for span in zip(ends, ends[1:], strict=False)]


def pairs_of_trees(folder: Path) -> Path | None:
    """The newest dataset of pairs that was made from a folder of trees, in the same outputs."""
    made = [path for path in _made_from(folder, "dataset") if _form(path) == "pairs"]
    return max(made, key=lambda path: path.stat().st_mtime, default=None)


def students_of(dataset: Path) -> list[Path]:
    """The students that learnt a dataset and kept what they logged of its pairs."""
    return [path for path in _made_from(dataset, "student") if (path / FILE).is_file()]


def _made_from(folder: Path, kind: str) -> list[Path]:
    """The finished stages of a kind, in the folder's outputs, that have it as an input."""
    if not (folder / "manifest.json").is_file():
        return []
    key = read_manifest(folder)["key"]
    found = []
    for path in sorted((folder.absolute().parents[1] / kind).glob("*/manifest.json")):
        try:
            inputs = json.loads(path.read_text(encoding="utf-8"))["inputs"]
            if any(entry["key"] == key for entry in inputs.values()):
                found.append(path.parent)
        except (OSError, ValueError, KeyError, TypeError):  # not ours, or unfinished
            continue
    return found


def _form(dataset: Path) -> str | None:
    is_whole = (dataset / CONFIG).is_file()
    return order_of(dataset)["config"].get("form") if is_whole else None
