"""A thin Lightning module: one step = all its micro-batches, one update, one row of the log."""

import math
import random
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from marco import termination
from marco.errors import UserError
from marco.logps import chain_logps
from marco.losses import PREFERENCE_LOSSES, PairLogps, joint, sft
from marco.training.config import LossConfig, TrainerConfig
from marco.training.data_module import MicroBatch, Step
from marco.training.figures import PairFigures, pair_line, pair_statistics
from marco.training.master_weights import MasterWeights, clip_scale
from marco.training.schedule import rate_share
from marco.training.strategies import shard


class ChainModule(pl.LightningModule):
    """Trains `model` by a loss of `marco/losses.py`.

    `history` holds one dict of floats per optimiser step, `pairs_seen` that of each pair (by its
    row) in the last step that took it; both are the same on every device. `tokens` counts what this
    device has computed since it was set up, in `seconds`.
    """

    def __init__(
        self,
        model: Any,
        loss: LossConfig,
        trainer: TrainerConfig,
        *,
        total_steps: int,
        thirds: Mapping[int, str],
        seed: int,
    ) -> None:
        super().__init__()
        # One step is several backward passes; how many depends on its tokens.
        self.automatic_optimization = False
        self.model, self.loss, self.settings = model, loss, trainer
        self.total_steps, self.thirds, self.seed = total_steps, thirds, seed
        self.history: list[dict[str, float]] = []
        self.pairs_seen: dict[int, dict[str, float]] = {}
        self.masters: MasterWeights | None = None
        self.tokens, self.seconds = 0, 0.0
        self.chain_logps = partial(chain_logps, model)

    def configure_model(self) -> None:
        if self.settings.strategy == "fsdp" and not isinstance(self.model, FSDPModule):
            assert self.device_mesh is not None
            mesh = self.device_mesh["data_parallel"]
            self.chain_logps = shard(self.model, mesh, self.settings.precision)

    def configure_optimizers(self) -> Any:
        parameters = self.trained
        # An adapter's weights are fp32 by themselves, as FSDP's shards are.
        is_rounded = any(p.dtype == torch.bfloat16 for p in parameters)
        if self.settings.precision == "bf16-master" and is_rounded:
            self.masters = MasterWeights(parameters)
            parameters = self.masters.masters
            head = self.model.lm_head.weight
            if head.requires_grad:
                self.chain_logps = partial(
                    chain_logps, self.model, head_leaf=self.masters.gradient_of(head)
                )
        # Norm weights and biases are vectors; decaying them only pulls them from their scale.
        groups = [
            {
                "params": [p for p in parameters if p.ndim >= 2],
                "weight_decay": self.settings.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, fused=True)
        warmup_steps = math.ceil(self.settings.warmup_ratio * self.total_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: rate_share(
                step,
                total_steps=self.total_steps,
                warmup_steps=warmup_steps,
                schedule=self.settings.schedule,
            ),
        )
        return [optimizer], [scheduler]

    def terms(self, part: MicroBatch, step: Step) -> tuple[dict[str, Tensor], list[PairFigures]]:
        """The loss and its terms, summed over a micro-batch and divided by the step's counts.

        And what is known of each of its pairs. Both terms are 0 for an idle micro-batch.
        """
        logps = self.chain_logps(part.batch)
        chosen = logps[: len(part.sft_mask)]
        terms: dict[str, Tensor] = {}
        if self.loss.alpha > 0:
            terms["loss/sft"] = sft(chosen, part.sft_mask, tokens=step.sft_tokens)
        if part.weights is None:
            return {"loss": self.loss.alpha * terms["loss/sft"], **terms}, []
        pairs = self.pairs(part, logps)
        knobs = self.preference.knobs
        losses = PREFERENCE_LOSSES[self.preference.name].function(pairs, **knobs)
        terms["loss/preference"] = losses[: part.examples].sum() / step.examples
        nll = terms.get("loss/sft", torch.zeros_like(terms["loss/preference"]))
        loss = joint(terms["loss/preference"], nll, alpha=self.loss.alpha)
        return {"loss": loss, **terms}, PairFigures.of(part, pairs)

    @property
    def preference(self) -> Any:
        assert self.loss.preference is not None
        return self.loss.preference

    @property
    def reward_scale(self) -> float:
        """What a log-ratio is multiplied by to be a reward: beta, 1 for losses that have none."""
        return float(self.preference.knobs.get("beta", 1.0))

    def pairs(self, part: MicroBatch, logps: Tensor) -> PairLogps:
        """The pairs of a micro-batch as the losses take them."""
        assert part.weights is not None
        count = len(part.sft_mask)
        reference = torch.zeros_like(logps) if part.reference is None else part.reference
        chosen_reference, rejected_reference = reference.to(logps.dtype).split(count)
        chosen_weights, rejected_weights = part.weights.to(logps.dtype).split(count)
        chosen_lengths, rejected_lengths = part.lengths.split(count)
        chosen, rejected = logps.split(count)
        return PairLogps(
            chosen=chosen,
            rejected=rejected,
            chosen_reference=chosen_reference,
            rejected_reference=rejected_reference,
            chosen_weights=chosen_weights,
            rejected_weights=rejected_weights,
            chosen_lengths=chosen_lengths,
            rejected_lengths=rejected_lengths,
        )

    def training_step(self, step: Step, batch_idx: int) -> None:
        with termination.uninterrupted():
            self._step(step)

    def _step(self, step: Step) -> None:
        # What an adapter drops in a step depends on its number and device alone, as the step does.
        place = f"dropout:{self.seed}:{len(self.history)}:{self.global_rank}"
        torch.manual_seed(random.Random(place).getrandbits(63))
        # One of each, by configure_optimizers; Lightning types them as any number.
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        sums: dict[str, float] = {}
        pairs: list[PairFigures] = []
        for part in step.micro_batches:
            terms, own = self.terms(part, step)
            self.manual_backward(terms["loss"])
            pairs += own
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        own_parts = [part for part in step.micro_batches if part.examples]  # without idle ones
        counts = {
            "tokens": sum(part.batch.tokens for part in own_parts),
            "plain_tokens": sum(part.plain_tokens for part in own_parts),
            "shared_tokens": sum(part.shared_tokens for part in own_parts),
            "completion_tokens": sum(int(part.lengths.sum()) for part in own_parts),
        }
        self.tokens += counts["tokens"]
        if self.shared:
            sums, counts, pairs = self._of_all_devices(sums, counts, pairs)
            self._sum_gradients()
        if not math.isfinite(sums["loss"]):  # of all devices, so that they end together
            raise UserError(self._not_finite("loss"))
        norm: Any = self._gradient_norm()
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP's is a share
        if not torch.isfinite(norm):
            raise UserError(self._not_finite("gradient"))
        rate = optimizer.param_groups[0]["lr"]
        if self.masters is not None:
            scale = clip_scale(norm, most=self.settings.max_grad_norm)
            self.masters.step(optimizer.optimizer, scale=scale)
        else:
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
        figures = {
            **sums,
            **self._of_pairs(pairs),
            "grad_norm": float(norm),
            "learning_rate": float(rate),
            "tokens": float(counts["tokens"]),
            "unique_share": counts["tokens"] / counts["plain_tokens"],
        }
        if pairs:
            figures["shared_prefix_share"] = counts["shared_tokens"] / counts["completion_tokens"]
        self.history.append(figures)
        for pair in pairs:
            line = pair_line(pair, step=len(self.history), scale=self.reward_scale)
            self.pairs_seen[pair.row] = line
        self.log_dict({f"train/{name}": value for name, value in figures.items()})
        if self.shared and self._any_told():
            sys.exit(143)

    @torch.no_grad()
    def validate(self, step: Step) -> dict[str, float]:
        """The same figures of held-out examples; every device computes all of them."""
        self.model.eval()
        sums: dict[str, float] = {}
        pairs: list[PairFigures] = []
        for part in step.to(self.device).micro_batches:
            with self.trainer.precision_plugin.val_step_context():
                terms, own = self.terms(part, step)
            pairs += own
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        self.model.train()
        figures = sums | self._of_pairs(pairs)
        metric = self.settings.validation.metric
        if metric not in figures:
            raise UserError(
                f"trainer.validation.metric={metric}: held-out problems have no such figure; "
                f"there are {', '.join(figures)}"
            )
        return {f"validation/{name}": value for name, value in figures.items()}

    def has_stalled(self) -> bool:
        """Whether the validation metric has not improved for `patience` validations."""
        settings = self.settings.validation
        name = f"validation/{settings.metric}"
        values = [row[name] for row in self.history if name in row]
        if settings.metric.startswith("loss"):
            values = [-value for value in values]
        best = max(range(len(values)), key=lambda i: values[i], default=0)
        return settings.patience > 0 and len(values) - 1 - best >= settings.patience

    @property
    def is_first(self) -> bool:
        """Whether this is the device that writes."""
        return self._trainer is None or self.trainer.is_global_zero

    @property
    def shared(self) -> bool:
        """Whether other devices work on the same step."""
        return self._trainer is not None and self.trainer.world_size > 1

    def _of_pairs(self, pairs: Sequence[PairFigures]) -> dict[str, float]:
        if self.loss.preference is None:
            return {}
        loss = PREFERENCE_LOSSES[self.loss.preference.name]
        return pair_statistics(
            pairs,
            scale=self.reward_scale,
            has_reference=loss.uses_reference,
            thirds=self.thirds,
        )

    def _of_all_devices(
        self, sums: dict[str, float], counts: dict[str, int], pairs: list[PairFigures]
    ) -> tuple[dict[str, float], dict[str, int], list[PairFigures]]:
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, (sums, counts, pairs))
        return (
            {name: sum(part[0][name] for part in parts) for name in sums},
            {name: sum(part[1][name] for part in parts) for name in counts},
            [pair for part in parts for pair in part[2]],
        )

    def _any_told(self) -> bool:
        """Whether any device was told to end: then all of them do, after the same step."""
        told = torch.tensor(float(termination.is_told()), device=self.device)
        torch.distributed.all_reduce(told)
        return bool(told)

    @property
    def trained(self) -> list[Any]:
        """The model's parameters that the optimiser changes."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def _sum_gradients(self) -> None:
        """Add up what the devices found; FSDP has done so in the backward (`FullyShard`)."""
        if self.settings.strategy == "fsdp":
            return
        own = [p.grad for p in self.trained] if self.masters is None else self.masters.gradients()
        for gradient in own:
            torch.distributed.all_reduce(gradient)

    def _gradient_norm(self) -> Tensor:
        """The norm of all gradients; those that stand by the parameters themselves are clipped."""
        if self.masters is not None:
            return self.masters.norm()
        return torch.nn.utils.clip_grad_norm_(self.trained, self.settings.max_grad_norm)

    def _not_finite(self, what: str) -> str:
        return (
            f"the {what} is not finite at step {len(self.history) + 1} of {self.total_steps}; "
            "lower trainer.learning_rate, or use trainer.precision=32-true"
        )

    def on_fit_end(self) -> None:
        if self.masters is not None:
            self.masters.give_to_model()
