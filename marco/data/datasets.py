"""From trees to rows of an SFT or preference dataset, and their form on disk."""

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from marco.data.annotations import Annotations, told
from marco.data.buckets import Bucket, in_bucket
from marco.data.chains import Chain, Encode, chains_of
from marco.data.pairs import Pair, PairChoice, pairs_of
from marco.data.statistics import TreeChains, spread, tree_stats
from marco.errors import UserError
from marco.search.tree import Tree
from marco.tasks.verdict import CORRECT, WRONG

Row = dict[str, Any]
Stats = dict[str, Any]
Classify = Callable[[str], Collection[str]]  # the error classes of a chain's text


def build_sft(
    trees: Iterable[Tree],
    *,
    encode: Encode,
    bucket: Bucket,
    per_tree: int,
    max_tokens: int,
    classify: Classify,
    drop: Collection[str],
    annotations: Annotations | None,
    rng: random.Random,
) -> tuple[list[Row], Stats]:
    """Rows of correct chains, at most `per_tree` of each tree, the first ones of its bucket.

    What people said of chains in `annotations` is honoured first. Chains of more than `max_tokens`
    tokens (without prompt and end token), and those of an error class in `drop` by `classify`,
    leave before buckets are made. Bucket `any` draws its chains with `rng`. Rows are in tree order;
    columns: `id` (the tree's), `prompt`, `completion`, `node`, `bucket`, `tokens`, `parts` (of the
    completion: the kinds of its nodes and their characters; empty where an edit has unmade them).
    Raises UserError where no row is left, saying what emptied it.
    """
    rows, found = [], []
    for tree in trees:
        chains = _read(tree, encode, annotations, max_tokens, classify, drop)
        found.append(chains)
        bucketed = in_bucket(chains.of(CORRECT), bucket)
        if bucket == "any":
            rng.shuffle(bucketed)
        for chain in bucketed[:per_tree]:
            rows.append(_head(tree) | _completion(chain, bucket))
    if not rows:
        raise UserError(f"no SFT chain is left: {_emptied(found, max_tokens, pairs=False)}")
    stats = tree_stats(found) | {"bucket": bucket, "max_tokens": max_tokens} | _used(rows)
    stats |= _annotated(found, annotations)
    stats["tokens"]["sft"] = spread([row["tokens"] for row in rows])
    stats["per_tree"]["rows"] = spread(_rows_per_tree(rows, found))
    return rows, stats


def build_pairs(
    trees: Iterable[Tree],
    *,
    encode: Encode,
    bucket: Bucket,
    choice: PairChoice,
    per_tree: int,
    max_tokens: int,
    classify: Classify,
    drop: Collection[str],
    annotations: Annotations | None,
    rng: random.Random,
) -> tuple[list[Row], Stats]:
    """Rows of a correct and a wrong chain of one tree, at most `per_tree` a tree (`pairs_of`).

    A chain without an answer is no wrong chain and is never rejected. Dropped chains, order and
    errors as in `build_sft`; columns: `id`, `prompt`, `chosen`, `rejected`, `chosen_node`,
    `rejected_node`, `bucket`, `chosen_tokens`, `rejected_tokens`, `chosen_parts`, `rejected_parts`,
    `shared_prefix_tokens`.
    """
    rows, found = [], []
    for tree in trees:
        chains = _read(tree, encode, annotations, max_tokens, classify, drop)
        found.append(chains)
        sides = chains.of(CORRECT), chains.of(WRONG)
        for pair in pairs_of(*sides, bucket=bucket, choice=choice, per_tree=per_tree, rng=rng):
            rows.append(_head(tree) | _pair(pair, bucket))
    if not rows:
        raise UserError(f"no pair is left: {_emptied(found, max_tokens, pairs=True)}")
    stats = tree_stats(found) | {"bucket": bucket, "max_tokens": max_tokens} | _used(rows)
    stats |= _annotated(found, annotations) | {"choice": choice}
    for side in ("chosen", "rejected"):
        stats["tokens"][side] = spread([row[f"{side}_tokens"] for row in rows])
    stats["per_tree"]["pairs"] = spread(_rows_per_tree(rows, found))
    shares = [row["shared_prefix_tokens"] / row["chosen_tokens"] for row in rows]
    stats["shared_prefix_share"] = spread(shares)
    return rows, stats


def save(rows: Sequence[Row], folder: Path, *, stats: Mapping[str, Any]) -> None:
    """Write `dataset/` (for `datasets.load_from_disk`), `data.parquet` and `stats.json`."""
    data = datasets.Dataset.from_list(list(rows), features=_features(rows[0]))
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        data.save_to_disk(str(folder / "dataset"))
        data.to_parquet(str(folder / "data.parquet"))
    finally:
        if shown:
            datasets.enable_progress_bars()
    text = json.dumps(stats, indent=2, ensure_ascii=False)
    (folder / "stats.json").write_text(text + "\n", encoding="utf-8")


def _read(
    tree: Tree,
    encode: Encode,
    annotations: Annotations | None,
    max_tokens: int,
    classify: Classify,
    drop: Collection[str],
) -> TreeChains:
    distinct = chains_of(tree, encode)
    annotated, matched = Counter[str](), set[tuple[str, str]]()
    if annotations is not None:
        distinct, annotated, matched = annotations.apply(distinct, encode)
    kept, erring = [], []
    for chain in distinct:
        if chain.tokens > max_tokens:
            continue
        classes = frozenset(classify(chain.text) if drop else ()) & frozenset(drop)
        if classes:
            erring.append(classes)
        else:
            kept.append(chain)
    return TreeChains(
        status=tree.status,
        finished=sum(node.verdict is not None for node in tree.nodes),
        distinct=tuple(distinct),
        kept=tuple(kept),
        erring=tuple(erring),
        annotated=annotated,
        matched=frozenset(matched),
    )


def _annotated(found: Sequence[TreeChains], annotations: Annotations | None) -> Stats:
    """The statistics of the annotations, where some are given."""
    if annotations is None:
        return {}
    counted = sum((tree.annotated for tree in found), Counter[str]())
    matched = frozenset[tuple[str, str]]().union(*(tree.matched for tree in found))
    return {"annotations": told(counted, given=len(annotations), matched=len(matched))}


def _head(tree: Tree) -> Row:
    return {"id": tree.id, "prompt": [{"role": "user", "content": tree.problem}]}


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _completion(chain: Chain, bucket: Bucket) -> Row:
    return {
        "completion": _assistant(chain.text),
        "node": chain.node,
        "bucket": bucket,
        "tokens": chain.tokens,
        "parts": _parts(chain),
    }


def _parts(chain: Chain) -> list[dict[str, Any]]:
    return [{"kind": kind, "characters": count} for kind, count in chain.parts]


def _pair(pair: Pair, bucket: Bucket) -> Row:
    return {
        "chosen": _assistant(pair.chosen.text),
        "rejected": _assistant(pair.rejected.text),
        "chosen_node": pair.chosen.node,
        "rejected_node": pair.rejected.node,
        "bucket": bucket,
        "chosen_tokens": pair.chosen.tokens,
        "rejected_tokens": pair.rejected.tokens,
        "chosen_parts": _parts(pair.chosen),
        "rejected_parts": _parts(pair.rejected),
        "shared_prefix_tokens": pair.shared_prefix_tokens,
    }


def _used(rows: Sequence[Row]) -> Stats:
    return {"rows": len(rows), "trees_used": len({row["id"] for row in rows})}


def _rows_per_tree(rows: Sequence[Row], found: Sequence[TreeChains]) -> list[int]:
    """Row counts of all trees, the ones without rows as 0."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["id"]] = counts.get(row["id"], 0) + 1
    return [*counts.values(), *[0] * (len(found) - len(counts))]


def _emptied(found: Sequence[TreeChains], max_tokens: int, *, pairs: bool) -> str:
    """The first filter that left nothing, and what to do."""
    if not found:
        return "there are no trees; grow some with generate.py"
    trees = f"the {len(found)} tree(s)"
    if not any(tree.distinct for tree in found):
        return f"{trees} hold no finished chain; raise the search's budgets"
    if not any(tree.has(CORRECT) for tree in found):
        return f"{trees} hold no correct chain; take easier problems or a stronger model"
    if pairs and not any(tree.has(WRONG) and tree.has(CORRECT) for tree in found):
        return f"none of {trees} holds both a correct and a wrong chain; take more problems"
    too_long, erring = sum(tree.too_long for tree in found), sum(len(t.erring) for t in found)
    dropped = f"max_tokens={max_tokens} dropped {too_long} chain(s) as too long"
    if not erring:
        return f"{dropped}; raise data.max_tokens"
    return f"{dropped}, and data.drop_error_classes {erring}; raise the one, or drop fewer classes"


def _features(row: Row) -> datasets.Features:
    """Column types told by name, so that they never depend on the values of a dataset."""
    message = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    part = {"kind": datasets.Value("string"), "characters": datasets.Value("int64")}
    kinds: dict[str, Any] = {
        **dict.fromkeys(("id", "bucket"), datasets.Value("string")),
        **dict.fromkeys(("prompt", "completion", "chosen", "rejected"), [message]),
        **dict.fromkeys(("parts", "chosen_parts", "rejected_parts"), [part]),
    }
    return datasets.Features({name: kinds.get(name, datasets.Value("int64")) for name in row})
