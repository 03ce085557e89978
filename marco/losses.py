"""The losses of the method, pure functions of per-token log-probabilities.

y_w is the chosen chain, y_l the rejected one, h the margin of their log-ratios between the student
pi and its reference pi_ref, sigma the logistic function. Knobs are keyword-only and have no
defaults: the numbers stand in `conf/loss/`, their ranges in the annotations. Natural logarithms
throughout.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

if TYPE_CHECKING:
    # Every script reads the registry to check its config, and need not wait for torch.
    from torch import Tensor

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
FlipRate = Annotated[float, Field(ge=0, lt=0.5)]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, eq=False)
class PairLogps:
    """Per-token log-probabilities of P pairs, in nats.

    chosen, rejected: [P, T], of the student; *_reference: [P, T], zeros where the loss uses none;
    *_weights: [P, T] in the same dtype, 0 where a token is masked (padding, masked prefix, or not
    computed), else the token's weight: 1, or that of its node's kind; *_lengths: [P], tokens of the
    whole completions, masked prefix included. What stands at weight 0 reaches neither a loss nor
    its gradient, infinities included.
    """

    chosen: "Tensor"
    rejected: "Tensor"
    chosen_reference: "Tensor"
    rejected_reference: "Tensor"
    chosen_weights: "Tensor"
    rejected_weights: "Tensor"
    chosen_lengths: "Tensor"
    rejected_lengths: "Tensor"

    @property
    def chosen_log_ratio(self) -> "Tensor":
        """log pi(y_w|x) - log pi_ref(y_w|x), each token times its weight: [P], in nats."""
        return _sum(self.chosen - self.chosen_reference, self.chosen_weights)

    @property
    def rejected_log_ratio(self) -> "Tensor":
        """log pi(y_l|x) - log pi_ref(y_l|x), each token times its weight: [P], in nats."""
        return _sum(self.rejected - self.rejected_reference, self.rejected_weights)

    @property
    def h(self) -> "Tensor":
        """The margin: the log-ratio of y_w minus that of y_l, [P], in nats."""
        return self.chosen_log_ratio - self.rejected_log_ratio

    @property
    def chosen_mean(self) -> "Tensor":
        """The weighted mean of log pi over the tokens of y_w: [P], in nats; 0 if all are masked."""
        return _mean(self.chosen, self.chosen_weights)

    @property
    def rejected_mean(self) -> "Tensor":
        """The weighted mean of log pi over the tokens of y_l: [P], in nats; 0 if all are masked."""
        return _mean(self.rejected, self.rejected_weights)


def _log_sigmoid(values: "Tensor") -> "Tensor":
    from torch.nn.functional import logsigmoid

    return logsigmoid(values)


def _sum(values: "Tensor", weights: "Tensor") -> "Tensor":
    # 0 times infinity is no number, so masked values are replaced before they are weighted.
    return (weights * values.where(weights != 0, 0.0)).sum(dim=-1)


def _mean(values: "Tensor", weights: "Tensor") -> "Tensor":
    total = weights.sum(dim=-1)
    return _sum(values, weights) / total.where(total != 0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """A preference loss of the registry.

    function: PairLogps and knobs -> [P], in nats; knobs: the pydantic model of its keyword
    arguments; uses_reference: whether it reads pi_ref; prefix_cancels: whether taking the pair's
    common token prefix out of both chains (weights 0 there) changes neither the loss nor its
    gradient, provided that both weigh these tokens alike.
    """

    name: str
    function: Callable[..., Any]
    knobs: type[BaseModel]
    uses_reference: bool
    prefix_cancels: bool

    def check(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of `function`.

        ValueError if one is unknown, missing or out of range.
        """
        takes = self.knobs.model_fields
        if unknown := [str(knob) for knob in knobs if knob not in takes]:
            known = ", ".join(takes)
            raise ValueError(f"{self.name} has no {', '.join(unknown)}: it takes {known}")
        return dict(self.knobs.model_validate(knobs))


PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {}


def preference_loss(
    *, uses_reference: bool, prefix_cancels: bool
) -> Callable[[Function], Function]:
    """Register the function under its name; its keyword-only parameters are the knobs."""

    def register(function: Function) -> Function:
        name = function.__name__
        parameters = inspect.signature(function).parameters.values()
        fields: dict[str, Any] = {
            p.name: (p.annotation, ...) for p in parameters if p.kind is p.KEYWORD_ONLY
        }
        PREFERENCE_LOSSES[name] = PreferenceLoss(
            name=name,
            function=function,
            knobs=create_model(name, __config__=ConfigDict(allow_inf_nan=False), **fields),
            uses_reference=uses_reference,
            prefix_cancels=prefix_cancels,
        )
        return function

    return register


@preference_loss(uses_reference=True, prefix_cancels=True)
def dpo(pairs: PairLogps, *, beta: Positive) -> "Tensor":
    """-log sigma(beta h): equation 7 of DPO, arXiv 2305.18290."""
    return -_log_sigmoid(beta * pairs.h)


@preference_loss(uses_reference=True, prefix_cancels=True)
def conservative(pairs: PairLogps, *, beta: Positive, epsilon: FlipRate) -> "Tensor":
    """-(1-epsilon) log sigma(beta h) - epsilon log sigma(-beta h): DPO for swapped labels.

    Least at beta h = log((1-epsilon)/epsilon), so the margin stays bounded; epsilon is the share of
    labels taken to be swapped. Equation 3 of conservative DPO (cDPO), ericmitchell.ai/cdpo.pdf.
    Some trainers take a `label_smoothing` with plain DPO and ignore it: TRL 1.16's `sigmoid` does.
    """
    logit = beta * pairs.h
    return -(1 - epsilon) * _log_sigmoid(logit) - epsilon * _log_sigmoid(-logit)


@preference_loss(uses_reference=True, prefix_cancels=True)
def robust(pairs: PairLogps, *, beta: Positive, epsilon: FlipRate) -> "Tensor":
    """(-(1-epsilon) log sigma(beta h) + epsilon log sigma(-beta h)) / (1 - 2 epsilon).

    Its mean over labels that are swapped at the rate epsilon is the DPO loss of the true labels; it
    has no lower bound. Robust DPO (rDPO), arXiv 2403.00409.
    """
    logit = beta * pairs.h
    unswapped, swapped = -_log_sigmoid(logit), -_log_sigmoid(-logit)
    return ((1 - epsilon) * unswapped - epsilon * swapped) / (1 - 2 * epsilon)


@preference_loss(uses_reference=True, prefix_cancels=True)
def ipo(pairs: PairLogps, *, tau: Positive) -> "Tensor":
    """(h - 1/(2 tau))^2: equation 17 of IPO, arXiv 2310.12036."""
    return (pairs.h - 1 / (2 * tau)) ** 2


@preference_loss(uses_reference=True, prefix_cancels=False)
def ipo_mean(pairs: PairLogps, *, tau: Positive) -> "Tensor":
    """IPO (arXiv 2310.12036) with the mean log-ratio per token in place of the sum, as in TRL."""
    chosen = _mean(pairs.chosen - pairs.chosen_reference, pairs.chosen_weights)
    rejected = _mean(pairs.rejected - pairs.rejected_reference, pairs.rejected_weights)
    return (chosen - rejected - 1 / (2 * tau)) ** 2


@preference_loss(uses_reference=True, prefix_cancels=True)
def hinge(pairs: PairLogps, *, beta: Positive) -> "Tensor":
    """max(0, 1 - beta h): the hinge of SLiC-HF (arXiv 2305.10425) on log-ratios, as in RSO.

    RSO (arXiv 2309.06657) names it hinge-norm, and beta gamma.
    """
    return (1 - beta * pairs.h).relu()


@preference_loss(uses_reference=False, prefix_cancels=False)
def simpo(pairs: PairLogps, *, beta: Positive, gamma: NonNegative) -> "Tensor":
    """-log sigma(beta (mean log pi of y_w - mean log pi of y_l) - gamma), means over tokens.

    Equation 6 of SimPO, arXiv 2405.14734.
    """
    return -_log_sigmoid(beta * (pairs.chosen_mean - pairs.rejected_mean) - gamma)


@preference_loss(uses_reference=False, prefix_cancels=False)
def orpo(pairs: PairLogps, *, lambda_: Positive) -> "Tensor":
    """-lambda log sigma(log odds of y_w - log odds of y_l), odds p/(1-p), log p the mean of log pi.

    Equation 7 of ORPO, arXiv 2403.07691; the SFT term of its equation 6 is that of alpha.
    """
    return -lambda_ * _log_sigmoid(_log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean))


def _log_odds(logp: "Tensor") -> "Tensor":
    # At p = 1 the odds are infinite. 1 - exp(logp) would lose its digits near there.
    from torch import finfo

    logp = logp.clamp(max=-finfo(logp.dtype).eps)
    return logp - (-logp.expm1()).log()


@preference_loss(uses_reference=True, prefix_cancels=True)
def ld_dpo(pairs: PairLogps, *, beta: Positive, tail_weight: Share) -> "Tensor":
    """DPO with the tokens beyond the public length min(|y_w|, |y_l|) times tail_weight.

    Positions count from the start of the completion; student and reference are weighted alike. At
    tail_weight 1 it is DPO. LD-DPO, arXiv 2409.06411, alpha there.
    """
    public = pairs.chosen_lengths.minimum(pairs.rejected_lengths)[:, None]

    def weighted(weights: "Tensor") -> "Tensor":
        position = weights.new_ones(weights.shape[-1]).cumsum(dim=-1)  # from 1
        return weights.where(position <= public, tail_weight * weights)

    chosen, rejected = weighted(pairs.chosen_weights), weighted(pairs.rejected_weights)
    return dpo(replace(pairs, chosen_weights=chosen, rejected_weights=rejected), beta=beta)


@preference_loss(uses_reference=True, prefix_cancels=False)
def dpop(pairs: PairLogps, *, beta: Positive, lambda_: NonNegative) -> "Tensor":
    """-log sigma(beta (h - lambda max(0, log pi_ref(y_w|x) - log pi(y_w|x)))).

    The penalty, for a chosen chain less likely than under the reference, is no function of h. DPOP
    (DPO-Positive), arXiv 2402.13228.
    """
    return -_log_sigmoid(beta * (pairs.h - lambda_ * (-pairs.chosen_log_ratio).relu()))


@preference_loss(uses_reference=True, prefix_cancels=False)
def rpo(pairs: PairLogps, *, beta: Positive, sft_weight: NonNegative) -> "Tensor":
    """-log sigma(beta h) - sft_weight times the mean log pi over the tokens of y_w.

    The mean is that of each chain; that of the config's alpha is over all tokens of a step.
    Equation 1 of iterative reasoning preference optimisation, arXiv 2404.19733, alpha there.
    """
    return dpo(pairs, beta=beta) - sft_weight * pairs.chosen_mean


@preference_loss(uses_reference=True, prefix_cancels=True)
def length_regularised(pairs: PairLogps, *, beta: Positive, length_weight: NonNegative) -> "Tensor":
    """-log sigma(beta h + length_weight (|y_w| - |y_l|)).

    DPO for the reward r - length_weight |y|: its optimal policy has r = beta log(pi/pi_ref) +
    length_weight |y| + const, hence the plus. R-DPO, arXiv 2403.19159, alpha there.
    """
    longer = pairs.chosen_lengths - pairs.rejected_lengths
    return -_log_sigmoid(beta * pairs.h + length_weight * longer)


def sft(logps: "Tensor", mask: "Tensor", *, tokens: int) -> "Tensor":
    """Negative log-likelihood of the unmasked tokens, over `tokens`: those of the whole step.

    logps: [chains, T]; mask: [chains, T] bool; returns a scalar, in nats, 0 (with a gradient of 0)
    when every token is masked.
    """
    return -logps.where(mask, 0.0).sum() / max(tokens, 1)


def joint(preference: "Tensor", sft: "Tensor", *, alpha: float) -> "Tensor":
    """L = L_preference + alpha L_SFT(chosen), scalars (section 3 of arXiv 2503.01461)."""
    return preference + alpha * sft
