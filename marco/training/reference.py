"""Per-token log-probabilities of a dataset under the frozen start model, computed once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from marco.errors import UserError
from marco.logps import chain_logps
from marco.training.examples import ExampleSet, by_prompt
from marco.training.tree_batch import TreeBatch, micro_batches

LOGPS_FILE, META_FILE = "reference.safetensors", "reference.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """log pi_ref per completion token, in nats: `values` [tokens] of all chains end to end.

    The chain of (row, side) is `values[start : stop]` for `spans[row, side] = (start, stop)`; side
    0 is the chosen chain, side 1 the rejected one.
    """

    values: Tensor
    spans: dict[tuple[int, int], tuple[int, int]]
    fingerprint: str

    def logps(self, row: int, side: int) -> Tensor:
        """[tokens] of one chain; raises `UserError` where the reference does not hold it."""
        if (row, side) not in self.spans:
            raise UserError(
                f"the reference lacks row {row} of the dataset: it was computed with a smaller "
                "trainer.max_tokens; compute it again"
            )
        start, stop = self.spans[row, side]
        return self.values[start:stop]

    def save(self, folder: Path) -> None:
        """Write the values as safetensors, and the spans with the fingerprint as JSON."""
        save_file({"logps": self.values}, folder / LOGPS_FILE)
        spans = [[*key, *span] for key, span in self.spans.items()]
        meta = {"schema": 1, "dataset_fingerprint": self.fingerprint, "spans": spans}
        (folder / META_FILE).write_text(json.dumps(meta), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Reference":
        """Read what `save` wrote; raises `UserError` where the folder holds none."""
        try:
            meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
            values = load_file(folder / LOGPS_FILE)["logps"]
        except FileNotFoundError as error:
            raise UserError(f"{folder}: holds no reference log-probabilities") from error
        spans = {(row, side): (start, stop) for row, side, start, stop in meta["spans"]}
        return cls(values=values, spans=spans, fingerprint=meta["dataset_fingerprint"])


@torch.no_grad()
def reference_logps(
    model: Any,
    data: ExampleSet,
    *,
    micro_batch_tokens: int,
    on_group_done: Callable[[int, int], None] | None = None,
) -> Reference:
    """Run `model` over every chain of `data`, packed `micro_batch_tokens` tokens at a time.

    `on_group_done` is told how many examples and how many packed tokens are done.
    """
    examples = [example for group in by_prompt(data.examples) for example in group]
    groups = micro_batches([e.chains() for e in examples], max_tokens=micro_batch_tokens)
    device = next(model.parameters()).device
    parts: list[Tensor] = []
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    end = done = tokens = 0
    for group in groups:
        chains = [chain for i in group for chain in examples[i].chains()]
        keys = [(examples[i].row, side) for i in group for side in range(len(examples[i].kinds))]
        batch = TreeBatch.pack(chains).to(device)
        logps = chain_logps(model, batch).cpu()
        for key, chain, values in zip(keys, chains, logps, strict=True):
            count = len(chain.completion)
            parts.append(values[:count])
            spans[key] = (end, end + count)
            end += count
        done += len(group)
        tokens += batch.tokens
        if on_group_done is not None:
            on_group_done(done, tokens)
    return Reference(values=torch.cat(parts), spans=spans, fingerprint=data.fingerprint)
