"""Optimiser steps as data: which examples, in which order, packed in which micro-batches."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from marco.data.pairs import shared_prefix
from marco.losses import PREFERENCE_LOSSES
from marco.training.config import LossConfig
from marco.training.examples import Example, ExampleSet, by_prompt
from marco.training.reference import Reference
from marco.training.tree_batch import TreeBatch, even_micro_batches


@dataclass(frozen=True, kw_only=True, eq=False)
class MicroBatch:
    """What one forward takes: P examples in one packed row.

    The chains of `batch` are the P chosen ones (or SFT completions), then the P rejected ones if
    there are any. weights: [2P, T] of the tokens in the preference term, 0 where it counts none;
    reference: [2P, T] log-probabilities, or None where the loss takes none; sft_mask: [P, T] bool,
    the tokens that the SFT term counts; lengths: [P or 2P] tokens of the completions; rows: the
    examples' places in the dataset. `plain_tokens` are what separate forwards would compute,
    `shared_tokens` those of the completions that are the common prefix of a pair.
    """

    batch: TreeBatch
    rows: tuple[int, ...]
    weights: Tensor | None
    reference: Tensor | None
    sft_mask: Tensor
    lengths: Tensor
    plain_tokens: int
    shared_tokens: int

    @property
    def examples(self) -> int:
        return len(self.rows)

    def idle(self) -> "MicroBatch":
        """The same forward, for nothing: no term counts a token of it."""
        weights = None if self.weights is None else torch.zeros_like(self.weights)
        return replace(self, weights=weights, sft_mask=torch.zeros_like(self.sft_mask), rows=())

    def to(self, device: torch.device | str) -> "MicroBatch":
        return replace(
            self,
            batch=self.batch.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            reference=None if self.reference is None else self.reference.to(device),
            sft_mask=self.sft_mask.to(device),
            lengths=self.lengths.to(device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One optimiser step: this device's micro-batches, and what all devices together count.

    The loss is normalised over `examples` and `sft_tokens`, so it is the same however the step is
    packed and however many devices share it.
    """

    micro_batches: tuple[MicroBatch, ...]
    examples: int
    sft_tokens: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Step":
        return replace(self, micro_batches=tuple(part.to(device) for part in self.micro_batches))


class Packer:
    """Packs examples for a loss: only the log-probabilities that one of its terms counts."""

    def __init__(self, loss: LossConfig, reference: Reference | None) -> None:
        self.reference, self.token_weights = reference, loss.weights
        self.has_sft = loss.alpha > 0
        self.sft_without_prefix = loss.mask in ("sft", "all")
        self.preference_without_prefix = loss.mask in ("preference", "all")
        self.prefix_cancels = (
            loss.preference is not None and PREFERENCE_LOSSES[loss.preference.name].prefix_cancels
        )

    def pack(self, examples: Sequence[Example]) -> MicroBatch:
        """One forward of examples, all SFT or all pairs."""
        is_pairs = len(examples[0].completions) == 2
        sides = range(len(examples[0].completions))
        packed = [example.chains(self.skipped(example)) for example in examples]
        chains = [chains[side] for side in sides for chains in packed]
        batch = TreeBatch.pack(chains)
        order = [(example, side) for side in sides for example in examples]
        lengths = torch.tensor([len(chain.completion) for chain in chains])
        places = torch.arange(batch.chain_mask.shape[1])
        starts = torch.tensor([self._sft_start(example) for example in examples])
        sft_mask = (places >= starts[:, None]) & (places < lengths[: len(examples), None])
        return MicroBatch(
            batch=batch,
            rows=tuple(example.row for example in examples),
            weights=_stack([self._weights(e, side) for e, side in order]) if is_pairs else None,
            reference=None
            if self.reference is None
            else _stack([self.reference.logps(e.row, side) for e, side in order]),
            sft_mask=sft_mask & self.has_sft,
            lengths=lengths,
            plain_tokens=sum(len(chain.path) for chain in chains),
            shared_tokens=sum(example.shared * len(sides) for example in examples),
        )

    def skipped(self, example: Example) -> tuple[int, int]:
        """Of the chosen and of the rejected completion, the first tokens that no term counts."""
        if len(example.completions) == 1:
            return 0, 0
        preference = self._preference_start(example)
        sft = self._sft_start(example) if self.has_sft else preference
        return min(preference, sft), preference

    def teaches(self, example: Example) -> bool:
        """Whether any of its tokens moves the loss: not where a pair's chains are equal."""
        sides = range(len(example.completions))
        differs = len(set(example.completions)) == 2
        return self.sft_tokens(example) > 0 or (
            differs and any(bool(self._weights(example, side).any()) for side in sides)
        )

    def sft_tokens(self, example: Example) -> int:
        return (len(example.completions[0]) - self._sft_start(example)) * self.has_sft

    def _sft_start(self, example: Example) -> int:
        return example.shared if self.sft_without_prefix else 0

    def _preference_start(self, example: Example) -> int:
        """The tokens that the preference term leaves out: masked ones, and those that cancel."""
        if self.preference_without_prefix:
            return example.shared
        if not self.prefix_cancels:
            return 0
        # What both sides weigh alike cancels, and need not be computed.
        alike = self._of_kinds(example, 0), self._of_kinds(example, 1)
        return min(example.shared, shared_prefix(*alike))

    def _weights(self, example: Example, side: int) -> Tensor:
        """[tokens] of one completion."""
        weights = torch.tensor(self._of_kinds(example, side))
        weights[: self._preference_start(example)] = 0
        return weights

    def _of_kinds(self, example: Example, side: int) -> list[float]:
        """The weight of each token of a completion, by the kind of its node."""
        if not self.token_weights:
            return [1.0] * len(example.completions[side])
        return [self.token_weights.get(k, 1.0) for k, n in example.kinds[side] for _ in range(n)]


def _stack(rows: Sequence[Tensor]) -> Tensor:
    """[rows, T] of rows of several lengths, 0 where one has ended."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def epoch_order(examples: Sequence[Example], *, seed: int, epoch: int) -> list[Example]:
    """Problems shuffled, and the examples of a problem next to each other, so they share tokens."""
    rng = random.Random(f"order:{seed}:{epoch}")
    groups = list(by_prompt(examples))
    rng.shuffle(groups)
    return [example for group in groups for example in rng.sample(group, len(group))]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`batch_size` examples an optimiser step, `micro_batch_tokens` packed tokens a forward."""

    batch_size: int
    micro_batch_tokens: int
    epochs: int


class Steps:
    """The steps of a run from step `done` on, packed one at a time as they are asked for.

    Step k is the same whenever it is asked for: its examples depend on the seed and on k alone.
    Its micro-batches are dealt to `devices` in turn.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        packer: Packer,
        sizes: Sizes,
        *,
        seed: int,
        done: int = 0,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        self.examples, self.packer, self.sizes, self.seed = examples, packer, sizes, seed
        self.done, self.rank, self.devices = done, rank, devices
        self.per_epoch = -(-len(examples) // sizes.batch_size)

    def __len__(self) -> int:
        return self.per_epoch * self.sizes.epochs - self.done

    def __iter__(self) -> Iterator[Step]:
        order: list[Example] = []
        for step in range(self.done, self.done + len(self)):
            epoch, place = divmod(step, self.per_epoch)
            if not order or place == 0:
                order = epoch_order(self.examples, seed=self.seed, epoch=epoch)
            start = place * self.sizes.batch_size
            yield self.step(order[start : start + self.sizes.batch_size])

    def step(self, examples: Sequence[Example]) -> Step:
        """This device's part of a step over `examples`."""
        groups = even_micro_batches(
            [example.chains() for example in examples], max_tokens=self.sizes.micro_batch_tokens
        )
        own = groups[self.rank :: self.devices]
        parts = [self.packer.pack([examples[i] for i in group]) for group in own]
        if len(parts) < -(-len(groups) // self.devices):
            # Devices that share a step must run as many forwards.
            parts.append(self.packer.pack([examples[i] for i in groups[0]]).idle())
        return Step(
            micro_batches=tuple(parts),
            examples=len(examples),
            sft_tokens=sum(map(self.packer.sft_tokens, examples)),
        )


class ChainDataModule(pl.LightningDataModule):
    """The steps of a run, as one epoch of Lightning's: how far it has come is the module's."""

    def __init__(self, data: ExampleSet, packer: Packer, sizes: Sizes, *, seed: int) -> None:
        super().__init__()
        self.data, self.packer, self.sizes, self.seed = data, packer, sizes, seed

    @property
    def total_steps(self) -> int:
        return len(Steps(self.data.examples, self.packer, self.sizes, seed=self.seed))

    def train_dataloader(self) -> Steps:
        trainer = self.trainer
        assert trainer is not None
        module: Any = trainer.lightning_module
        return Steps(
            self.data.examples,
            self.packer,
            self.sizes,
            seed=self.seed,
            done=self.total_steps if module.has_stalled() else len(module.history),
            rank=trainer.global_rank,
            devices=trainer.world_size,
        )


def length_thirds(examples: Sequence[Example]) -> Mapping[int, str]:
    """`short`, `medium` or `long`: the third of the examples that a row is of, by chosen length."""
    ranked = sorted(examples, key=lambda e: (len(e.completions[0]), e.row))
    names = ("short", "medium", "long")
    return {e.row: names[3 * i // len(ranked)] for i, e in enumerate(ranked)}
