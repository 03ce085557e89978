"""Thin Lightning modules: one step = all its micro-batches, one update, one row of the log."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from marco.errors import UserError
from marco.logps import chain_logps
from marco.losses import PREFERENCE_LOSSES, joint, log_ratio, sft, shared_prefix_mask
from marco.training.config import LossConfig, TrainerConfig
from marco.training.data_module import MicroBatch, Step
from marco.training.master_weights import MasterWeights
from marco.training.schedule import rate_share


class ChainModule(pl.LightningModule):
    """What both modules share: micro-batches, clipping, the schedule, and the log.

    `history` holds one dict of floats per optimiser step.
    """

    def __init__(
        self, model: Any, loss: LossConfig, trainer: TrainerConfig, *, total_steps: int
    ) -> None:
        super().__init__()
        # One step is several backward passes; how many depends on its tokens.
        self.automatic_optimization = False
        self.model, self.loss, self.settings = model, loss, trainer
        self.total_steps = total_steps
        self.history: list[dict[str, float]] = []
        self.masters: MasterWeights | None = None

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.settings.precision == "bf16-master":
            self.masters = MasterWeights(parameters)
            parameters = self.masters.masters
        # Norm weights and biases are vectors; decaying them only pulls them from their scale.
        groups = [
            {
                "params": [p for p in parameters if p.ndim >= 2],
                "weight_decay": self.settings.weight_decay,
            },
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
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

    def terms(self, part: MicroBatch, logps: Tensor, totals: dict[str, int]) -> dict[str, Tensor]:
        """Sums over a micro-batch, each divided by its total of the step; `loss` is one of them."""
        raise NotImplementedError

    def sft_mask(self, part: MicroBatch) -> Tensor:
        """[P, T] bool: the tokens of the chosen chains that the SFT term counts."""
        return part.batch.chain_mask[: part.examples]

    def training_step(self, step: Step, batch_idx: int) -> None:
        started = time.monotonic()
        # One of each, by configure_optimizers; Lightning types them as any number.
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        totals = {
            "examples": step.examples,
            "sft_tokens": sum(int(self.sft_mask(part).sum()) for part in step.micro_batches),
        }
        sums: dict[str, float] = {}
        for part in step.micro_batches:
            terms = self.terms(part, chain_logps(self.model, part.batch), totals)
            if not torch.isfinite(terms["loss"]):
                raise UserError(self._not_finite("loss"))
            self.manual_backward(terms["loss"])
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise UserError(self._not_finite("gradient"))
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        if self.masters is not None:
            self.masters.copy_to_model()
        packed = sum(part.batch.tokens for part in step.micro_batches)
        plain = sum(part.plain_tokens for part in step.micro_batches)
        figures = {
            **sums,
            "grad_norm": float(norm),
            "learning_rate": float(rate),
            "tokens": float(packed),
            "tokens_per_second": packed / (time.monotonic() - started),
            "shared_share": 1 - packed / plain,
        }
        self.history.append(figures)
        self.log_dict({f"train/{name}": value for name, value in figures.items()})

    def _not_finite(self, what: str) -> str:
        return (
            f"the {what} is not finite at step {len(self.history) + 1} of {self.total_steps}; "
            "lower trainer.learning_rate, or use trainer.precision=32-true"
        )

    def on_fit_end(self) -> None:
        if self.masters is not None:
            self.masters.give_to_model()


class SFTModule(ChainModule):
    """Negative log-likelihood of the completions, times alpha."""

    def terms(self, part: MicroBatch, logps: Tensor, totals: dict[str, int]) -> dict[str, Tensor]:
        mask = self.sft_mask(part)
        nll = sft(logps, mask) * mask.sum() / totals["sft_tokens"]
        length = mask.sum() / totals["examples"]
        return {"loss": self.loss.alpha * nll, "loss/sft": nll, "length/chosen": length}


class PreferenceModule(ChainModule):
    """A loss of the margin h of chosen over rejected chains, plus alpha times SFT on the chosen."""

    def masks(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """[P, T] bool twice: the tokens that h counts, of the chosen and of the rejected chains."""
        chosen, rejected = part.batch.chain_mask.split(part.examples)
        if self.loss.mask == "none":
            return chosen, rejected
        chosen_ids, rejected_ids = part.batch.chain_ids.split(part.examples)
        return shared_prefix_mask(chosen_ids, rejected_ids, chosen, rejected)

    def sft_mask(self, part: MicroBatch) -> Tensor:
        return self.masks(part)[0] if self.loss.mask == "all" else super().sft_mask(part)

    def terms(self, part: MicroBatch, logps: Tensor, totals: dict[str, int]) -> dict[str, Tensor]:
        preference = self.loss.preference
        assert preference is not None and part.reference is not None
        chosen, rejected = logps.split(part.examples)
        ref_chosen, ref_rejected = part.reference.to(logps.dtype).split(part.examples)
        chosen_mask, rejected_mask = self.masks(part)
        ratio_chosen = log_ratio(chosen, ref_chosen, chosen_mask)
        ratio_rejected = log_ratio(rejected, ref_rejected, rejected_mask)
        h = ratio_chosen - ratio_rejected
        pairs = totals["examples"]
        preferred = PREFERENCE_LOSSES[preference.name](h, **preference.knobs).sum() / pairs
        mask = self.sft_mask(part)
        nll = sft(chosen, mask) * mask.sum() / max(totals["sft_tokens"], 1)
        full_chosen, full_rejected = part.batch.chain_mask.split(part.examples)
        return {
            "loss": joint(preferred, nll, alpha=self.loss.alpha),
            "loss/preference": preferred,
            "loss/sft": nll,
            "rewards/chosen": preference.beta * ratio_chosen.sum() / pairs,
            "rewards/rejected": preference.beta * ratio_rejected.sum() / pairs,
            "rewards/margin": preference.beta * h.sum() / pairs,
            "rewards/accuracy": (h > 0).sum() / pairs,
            "logps/chosen": chosen.sum() / pairs,
            "logps/rejected": rejected.sum() / pairs,
            "length/chosen": full_chosen.sum() / pairs,
            "length/rejected": full_rejected.sum() / pairs,
        }
