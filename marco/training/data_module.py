"""Optimiser steps as data: which examples, in which order, packed in which micro-batches."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor

from marco.training.examples import Example, ExampleSet, by_prompt
from marco.training.reference import Reference
from marco.training.tree_batch import TreeBatch, micro_batches


@dataclass(frozen=True, kw_only=True, eq=False)
class MicroBatch:
    """What one forward takes: P examples in one packed row.

    The chains of `batch` are the P chosen ones (or SFT completions), then the P rejected ones if
    there are any; `reference` is [2P, T] as `batch.chain_mask`, or None; `plain_tokens` counts the
    tokens that P separate forwards would compute.
    """

    batch: TreeBatch
    examples: int
    reference: Tensor | None
    plain_tokens: int

    def to(self, device: torch.device | str) -> "MicroBatch":
        reference = None if self.reference is None else self.reference.to(device)
        return MicroBatch(
            batch=self.batch.to(device),
            examples=self.examples,
            reference=reference,
            plain_tokens=self.plain_tokens,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One optimiser step; the loss is normalised over all its micro-batches together."""

    micro_batches: tuple[MicroBatch, ...]

    @property
    def examples(self) -> int:
        return sum(part.examples for part in self.micro_batches)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Step":
        return Step(micro_batches=tuple(part.to(device) for part in self.micro_batches))


def micro_batch(examples: Sequence[Example], reference: Reference | None) -> MicroBatch:
    """Pack examples, all SFT or all pairs, with their reference log-probabilities."""
    sides = range(len(examples[0].completions))
    chains = [example.chains[side] for side in sides for example in examples]
    batch = TreeBatch.pack(chains)
    logps = None
    if reference is not None:
        logps = torch.zeros(batch.chain_mask.shape)
        order = ((example.row, side) for side in sides for example in examples)
        for chain, (row, side) in enumerate(order):
            values = reference.logps(row, side)
            logps[chain, : len(values)] = values
    return MicroBatch(
        batch=batch,
        examples=len(examples),
        reference=logps,
        plain_tokens=sum(len(prompt) + len(completion) - 1 for prompt, completion in chains),
    )


def epoch_order(examples: Sequence[Example], *, seed: int, epoch: int) -> list[Example]:
    """Problems shuffled, and the examples of a problem next to each other, so they share tokens."""
    rng = random.Random(f"order:{seed}:{epoch}")
    groups = list(by_prompt(examples))
    rng.shuffle(groups)
    return [example for group in groups for example in rng.sample(group, len(group))]


class Steps:
    """The steps of one epoch, packed one at a time as they are asked for."""

    def __init__(
        self,
        examples: Sequence[Example],
        reference: Reference | None,
        *,
        batch_size: int,
        micro_batch_tokens: int,
    ) -> None:
        self.examples, self.reference = examples, reference
        self.batch_size, self.micro_batch_tokens = batch_size, micro_batch_tokens

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Step]:
        for start in range(0, len(self.examples), self.batch_size):
            chosen = self.examples[start : start + self.batch_size]
            groups = micro_batches(
                [example.chains for example in chosen], max_tokens=self.micro_batch_tokens
            )
            parts = (micro_batch([chosen[i] for i in group], self.reference) for group in groups)
            yield Step(micro_batches=tuple(parts))


class ChainDataModule(pl.LightningDataModule):
    """Steps of `batch_size` examples; a new order of the problems in every epoch."""

    def __init__(
        self,
        data: ExampleSet,
        reference: Reference | None,
        *,
        batch_size: int,
        micro_batch_tokens: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.data, self.reference, self.seed = data, reference, seed
        self.batch_size, self.micro_batch_tokens = batch_size, micro_batch_tokens

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.data.examples) // self.batch_size)

    def train_dataloader(self) -> Steps:
        """The steps of the trainer's current epoch (the trainer must reload them every epoch)."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return Steps(
            epoch_order(self.data.examples, seed=self.seed, epoch=epoch),
            self.reference,
            batch_size=self.batch_size,
            micro_batch_tokens=self.micro_batch_tokens,
        )
