"""The modules' terms through a real tiny model."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from marco.logps import chain_logps
from marco.losses import PREFERENCE_LOSSES
from marco.training.config import LossConfig
from marco.training.data_module import Packer, Sizes, Steps
from marco.training.examples import Example, read_examples
from marco.training.module import ChainModule
from marco.training.reference import reference_logps
from marco.training.schedule import rate_share
from marco.training.student import load_student

from ..test_logps import in_double
from .test_fit import slow_twin

CONF = Path(__file__).parents[2] / "conf"


def terms_and_gradients(
    start: Path,
    folder: Path,
    settings: Any,
    *,
    name: str,
    mask: str,
    alpha: float,
    logps: Any = chain_logps,
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], int]:
    """The terms, the gradients of the loss, and the rows that went through the head."""
    model, tokenizer = load_student(start, precision="64-true")
    in_double(model)
    data = read_examples(folder, tokenizer, max_tokens=1000)
    reference = reference_logps(model, data, micro_batch_tokens=1000)
    # Away from the start, where h is 0 for every pair.
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    knobs = yaml.safe_load((CONF / "loss" / f"{name}.yaml").read_text())["preference"]
    loss = LossConfig.model_validate(
        {"preference": knobs, "alpha": alpha, "mask": mask, "weights": {}}
    )
    sizes = Sizes(batch_size=len(data.examples), micro_batch_tokens=10_000, epochs=1)
    (step,) = Steps(data.examples, Packer(loss, reference), sizes, seed=0)
    (part,) = step.micro_batches
    module = ChainModule(model, loss, settings(), total_steps=1, thirds={}, seed=0)
    module.chain_logps = partial(logps, model)
    terms, _ = module.terms(part, step)
    gradients = torch.autograd.grad(terms["loss"], list(model.parameters()))
    return terms, list(gradients), len(part.batch.head_rows)


def test_weights_of_kinds_by_hand():
    kinds = ((("thinking", 3), ("reflection", 2)), (("thinking", 3), ("answer", 1)))
    example = Example(row=0, prompt=(9,), completions=((1, 2, 3, 4, 5), (1, 6, 3, 4)), kinds=kinds)
    loss = LossConfig.model_validate(
        {
            "preference": {"name": "dpo", "beta": 0.1},
            "alpha": 1.0,
            "mask": "none",
            "weights": {"reflection": 0.5, "answer": 2.0},
        }
    )
    part = Packer(loss, None).pack([example])
    assert part.weights is not None
    # The first token is common to both, and cancels in DPO.
    assert part.weights.tolist() == [[0, 1, 1, 0.5, 0.5], [0, 1, 1, 2, 0]]
    assert part.sft_mask.tolist() == [[True] * 5]
    assert part.batch.chain_mask.tolist() == [[True] * 5, [False, True, True, True, False]]


def test_a_common_token_of_different_weights_does_not_cancel():
    kinds = ((("thinking", 2),), (("reflection", 3),))
    example = Example(row=0, prompt=(9,), completions=((1, 2), (1, 3, 2)), kinds=kinds)
    preference = {"name": "dpo", "beta": 0.1}
    for mask, first in (("none", [1, 0.5]), ("preference", [0, 0])):
        loss = LossConfig.model_validate(
            {
                "preference": preference,
                "alpha": 0.0,
                "mask": mask,
                "weights": {"reflection": 0.5},
            }
        )
        part = Packer(loss, None).pack([example])
        assert part.weights is not None
        assert part.weights[:, 0].tolist() == first


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_masking_the_prefix_changes_nothing_for_losses_of_h(
    start: Path, pairs_folder: Path, settings: Any, name: str
):
    plain, masked = (
        terms_and_gradients(start, pairs_folder, settings, name=name, mask=mask, alpha=1.0)
        for mask in ("none", "preference")
    )
    same = torch.allclose(masked[0]["loss"], plain[0]["loss"], rtol=0, atol=1e-10) and all(
        torch.allclose(ours, theirs, rtol=0, atol=1e-10)
        for ours, theirs in zip(masked[1], plain[1], strict=True)
    )
    assert same == PREFERENCE_LOSSES[name].prefix_cancels


@pytest.mark.parametrize(
    ("mask", "family"), [("none", "start"), ("all", "start"), ("none", "qwen")]
)
@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_every_loss_packed_equals_separate_forwards(
    request: pytest.FixtureRequest,
    pairs_folder: Path,
    settings: Any,
    name: str,
    mask: str,
    family: str,
):
    start = request.getfixturevalue(family)
    packed, separate = (
        terms_and_gradients(
            start, pairs_folder, settings, name=name, mask=mask, alpha=0.7, logps=logps
        )
        for logps in (chain_logps, slow_twin)
    )
    assert packed[0].keys() == separate[0].keys() == {"loss", "loss/preference", "loss/sft"}
    for term, value in packed[0].items():
        torch.testing.assert_close(value, separate[0][term], rtol=0, atol=1e-9)
    for ours, theirs in zip(packed[1], separate[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_what_cancels_is_not_computed(start: Path, pairs_folder: Path, settings: Any):
    rows = {
        (name, alpha): terms_and_gradients(
            start, pairs_folder, settings, name=name, mask="none", alpha=alpha
        )[2]
        for name in ("dpo", "dpop")
        for alpha in (0.0, 1.0)
    }
    # Of four problems, the 17 bytes that both of a pair's chains begin with.
    assert rows["dpop", 0.0] - rows["dpo", 0.0] == 4 * 17
    assert rows["dpo", 1.0] == rows["dpop", 1.0] == rows["dpop", 0.0]


def test_scopes_mask_each_term_by_itself(start: Path, pairs_folder: Path, settings: Any):
    scopes = {
        mask: terms_and_gradients(start, pairs_folder, settings, name="dpop", mask=mask, alpha=1.0)[
            0
        ]
        for mask in ("none", "preference", "sft", "all")
    }
    for term, without_prefix in (
        ("loss/preference", ("preference", "all")),
        ("loss/sft", ("sft", "all")),
    ):
        for mask, terms in scopes.items():
            is_plain = torch.isclose(terms[term], scopes["none"][term], rtol=1e-9)
            assert bool(is_plain) == (mask not in without_prefix), (term, mask)


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("linear", 0.5, 0.1), ("constant", 1.0, 1.0)]
)
def test_schedule_by_hand(schedule: Any, middle: float, last: float):
    knobs = {"total_steps": 12, "warmup_steps": 2, "schedule": schedule}
    assert rate_share(0, **knobs) == pytest.approx(1 / 3)
    assert rate_share(2, **knobs) == 1.0
    assert rate_share(7, **knobs) == pytest.approx(middle)
    assert rate_share(11, **knobs) == pytest.approx(last)


def test_cosine_schedule_is_half_way_down_in_the_middle():
    knobs: dict[str, Any] = {"total_steps": 10, "warmup_steps": 0, "schedule": "cosine"}
    assert rate_share(0, **knobs) == 1.0
    assert rate_share(5, **knobs) == pytest.approx(0.5)
    assert rate_share(10, **knobs) == pytest.approx(0.0)
