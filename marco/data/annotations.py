"""What people said of chains in the viewer, and what becomes of the chains by it.

A line of the file: `{"tree": "t-1", "node": 7, "chain": "<digest of its text>", "annotator": "ada",
"label": "correct", "text": null, "at": "2026-11-22T10:00:00+00:00"}`; `label` is `correct`, `wrong`
or `discard`, `text` the chain as it was edited, or null.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from marco.data.chains import Chain, Encode
from marco.errors import UserError
from marco.tasks.files import read_rows

Label = Literal["correct", "wrong", "discard"]
LABELS: tuple[Label, ...] = get_args(Label)
DISCARD = "discard"
# What `Annotations.apply` counts of each chain; a chain can be of several.
COUNTED = ("correct", "wrong", "discarded", "disagreed", "edited", "verdict_changed")


def chain_digest(text: str) -> str:
    """What a chain is known by, whatever its node's number: 32 hexadecimal digits of its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Opinion:
    """What one annotator says of a chain."""

    label: str
    text: str | None


class Annotations:
    """The opinions on each chain, by (tree id, digest of its text)."""

    def __init__(self, opinions: Mapping[tuple[str, str], Sequence[Opinion]]) -> None:
        self.opinions = opinions

    def __len__(self) -> int:
        return len(self.opinions)

    @classmethod
    def read(cls, path: Path) -> "Annotations":
        """From JSON Lines; of an annotator's lines on one chain the last counts.

        UserError names the line that is none.
        """
        found: dict[tuple[str, str], dict[str, Opinion]] = defaultdict(dict)
        for number, row in read_rows(path):
            texts = [row.get(name) for name in ("tree", "chain", "annotator")]
            label, text = row.get("label"), row.get("text")
            if not all(isinstance(value, str) for value in texts):
                raise UserError(
                    f"{path}, line {number}: no annotation: expected texts in `tree`, `chain` and "
                    "`annotator`, as the viewer exports them"
                )
            if label not in LABELS or not isinstance(text, str | None):
                raise UserError(
                    f"{path}, line {number}: label {label!r:.40}, text {text!r:.40}: expected one "
                    f"of {', '.join(LABELS)}, and a text or null"
                )
            tree, chain, annotator = map(str, texts)
            found[tree, chain][annotator] = Opinion(str(label), text)
        return cls({key: tuple(own.values()) for key, own in found.items()})

    def apply(
        self, chains: Sequence[Chain], encode: Encode
    ) -> tuple[list[Chain], Counter[str], set[tuple[str, str]]]:
        """A tree's chains as people want them; what was counted (`COUNTED`); the keys that matched.

        `correct` and `wrong` are the chain's new verdict, `discard` takes it out, an edited text
        takes the place of its own. Annotators who disagree, on the label or the text, take it out.
        Of chains that an edit has made equal, one stays.
        """
        kept: list[Chain] = []
        counted: Counter[str] = Counter()
        matched: set[tuple[str, str]] = set()
        for chain in chains:
            key = chain.tree_id, chain_digest(chain.text)
            if key not in self.opinions:
                kept.append(chain)
                continue
            matched.add(key)
            first, *others = self.opinions[key]
            if any(other != first for other in others):
                counted["disagreed"] += 1
            elif first.label == DISCARD:
                counted["discarded"] += 1
            else:
                counted[first.label] += 1
                counted["verdict_changed"] += chain.verdict != first.label
                counted["edited"] += first.text not in (None, chain.text)
                kept.append(_edited(replace(chain, verdict=first.label), first.text, encode))
        distinct = {chain.ids: chain for chain in reversed(kept)}  # of equal ones the first
        return list(distinct.values())[::-1], counted, matched


def _edited(chain: Chain, text: str | None, encode: Encode) -> Chain:
    """The chain with another text, split into its nodes where their tags are still there."""
    if text is None or text == chain.text:
        return chain
    parts = _parts(chain, text)
    ids: tuple[int, ...] = ()
    start = 0
    for _, length in parts or [("", len(text))]:
        ids += tuple(encode(text[start : start + length]))
        start += length
    return replace(chain, text=text, ids=ids, parts=tuple(parts), answer=None)


def _parts(chain: Chain, text: str) -> list[tuple[str, int]]:
    """The kinds of the nodes and their characters in an edited text; [] where they are not told.

    A node is its opening tag's line up to its closing tag's line, as in the chain before.
    """
    parts: list[tuple[str, int]] = []
    start = place = 0
    for kind, length in chain.parts:
        lines = chain.text[place : place + length].splitlines(keepends=True)
        place += length
        if not lines:
            return []
        opening, closing = lines[0], lines[-1]
        end = text.find(closing, start + len(opening))
        if not text.startswith(opening, start) or end < 0:
            return []
        parts.append((kind, end + len(closing) - start))
        start = end + len(closing)
    return parts if start == len(text) else []


def told(counted: Mapping[str, int], *, given: int, matched: int) -> dict[str, Any]:
    """The statistics of what was honoured; `unmatched` are of chains that the trees do not hold."""
    counts = {name: counted.get(name, 0) for name in COUNTED}
    return {"chains": matched, **counts, "unmatched": given - matched}
