"""The pairs of `train.py`, written as each way reads them, and the sizes of their steps."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from train_ways import MAX_TOKENS, SEED, Figures

Row = dict[str, Any]


def prepare(rows: Sequence[Row], folder: Path, model: Path, *, batch: int) -> list[Figures]:
    """Write `rows` for all ways, and return the sizes of their steps."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from marco.data.datasets import save
    from marco.training.data_module import epoch_order
    from marco.training.examples import read_examples

    folder.mkdir(parents=True)
    save(rows, folder, stats={})
    data = read_examples(folder, AutoTokenizer.from_pretrained(model), max_tokens=MAX_TOKENS)
    order = epoch_order(data.examples, seed=SEED, epoch=0)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    ids = [
        dict(zip(columns, map(list, (each.prompt, *each.completions)), strict=True))
        for each in order
    ]
    Dataset.from_list(ids).save_to_disk(str(folder / "trl"))
    steps = [_sizes(order[i : i + batch]) for i in range(0, len(order), batch)]
    (folder / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    return steps


def _sizes(examples: Sequence[Any]) -> Figures:
    """Tokens of a step: distinct ones, those that predict what DPO counts, and all unshared."""
    children: dict[tuple[int, int], int] = {}
    heads: set[int] = set()
    plain = completions = chains = 0
    for example in examples:
        first = len(example.prompt) - 1 + example.shared  # what is before cancels
        for completion in example.completions:
            node = -1
            for depth, token in enumerate([*example.prompt, *completion][:-1]):
                node = children.setdefault((node, token), len(children))
                if depth >= first:
                    heads.add(node)
            plain += len(example.prompt) + len(completion) - 1
            completions += len(completion)
            chains += 1
    return {
        "pairs": len(examples),
        "tokens": len(children),
        "heads": len(heads),
        "plain_tokens": plain,
        "completion_tokens": completions,
        "chains": chains,
    }


def own_rows(dataset: Path) -> list[Row]:
    """The pairs of a dataset folder, as they are."""
    from datasets import load_from_disk

    return load_from_disk(str(dataset / "dataset")).to_list()


def regrouped_rows(dataset: Path, model: Path, per_tree: int) -> list[Row]:
    """Pairs of the trees that the dataset is made from, so many of each that has as many."""
    from marco.data.datasets import build_pairs
    from marco.engines.prompts import ChatTokenizer
    from marco.search.tree import read_trees

    manifest = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    rows, _ = build_pairs(
        read_trees(Path(manifest["inputs"]["trees"]["path"])),
        encode=ChatTokenizer.load(model).encode,
        bucket="any",
        choice="shortest_prefix",
        per_tree=per_tree,
        max_tokens=768,
        classify=lambda _: (),
        drop=(),
        annotations=None,
        rng=random.Random(SEED),
    )
    return [row for tree in _by_tree(rows) if len(tree) == per_tree for row in tree]


def drawn(rows: Iterable[Row], count: int) -> list[Row]:
    """`count` rows of trees drawn in a fixed order."""
    trees = list(_by_tree(rows))
    random.Random(SEED).shuffle(trees)
    chosen = [row for tree in trees for row in tree][:count]
    if len(chosen) < count:
        raise SystemExit(f"there are only {len(chosen)} such pairs, not {count}: fewer --steps")
    return chosen


def _by_tree(rows: Iterable[Row]) -> Iterator[list[Row]]:
    for _, tree in groupby(rows, key=lambda row: row["id"]):
        yield list(tree)


class Words:
    """Texts of words that are one token each, to make chains of any length."""

    def __init__(self, model: Path) -> None:
        from marco.engines.prompts import ChatTokenizer

        self.chat = ChatTokenizer.load(model)
        found = (word.removeprefix("Ġ") for word in self.chat.tokenizer.get_vocab())
        known = sorted(word for word in found if word.isascii() and word.isalpha())
        self.words = [f" {word}" for word in known if len(self.chat.encode(f" {word}")) == 1]

    def drawn(self, count: int, rng: random.Random) -> str:
        return "".join(rng.choices(self.words, k=count))

    def stretched(self, row: Row, times: int) -> Row:
        """The same row with so many words for each of its tokens: it shares what it did."""
        sides = ("prompt", "chosen", "rejected")
        return {"id": row["id"]} | {side: self._longer(row[side], times) for side in sides}

    def _longer(self, messages: Sequence[Mapping[str, str]], times: int) -> list[dict[str, str]]:
        places = [
            times * token + i
            for token in self.chat.encode(messages[0]["content"])
            for i in range(times)
        ]
        text = "".join(self.words[place % len(self.words)] for place in places)
        return _message(messages[0]["role"], text)


def pair_of_words(words: Words, tokens: int, rng: random.Random, *, name: str) -> Row:
    """Two chains of so many tokens, prompt included, that share the first half."""
    row: Row = {"id": name, "prompt": _message("user", words.drawn(20, rng))}
    shared = words.drawn(tokens // 2 - len(words.chat.prompt(row["prompt"])), rng)
    for side in ("chosen", "rejected"):  # which end in one token more
        row[side] = _message("assistant", shared + words.drawn(tokens // 2 - 1, rng))
    return row


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]
