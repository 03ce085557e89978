"""Packed log-probabilities against separate forwards: values and all gradients, in float64."""

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from marco.logps import TILE, TargetLogps, chain_logps
from marco.training import tree_attention
from marco.training.fused import fuse
from marco.training.tree_batch import TokenChain, TreeBatch

SIZES = {
    "vocab_size": 13,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class DoubleNorm(nn.Module):
    """RMSNorm in the input's own precision; the library's rounds to fp32, which hides 1e-9."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)


def tiny(kind: str, *, tied: bool, fused: bool = False) -> nn.Module:
    """Of the library's modules but for the norms, or with all of ours that training uses."""
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    model = model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    fuse(model) if fused else in_double(model)
    return model


def in_double(model: nn.Module) -> None:
    """Put `DoubleNorm` in the place of a model's norms."""
    for layer in model.model.layers:
        layer.input_layernorm = DoubleNorm(layer.input_layernorm)
        layer.post_attention_layernorm = DoubleNorm(layer.post_attention_layernorm)
    model.model.norm = DoubleNorm(model.model.norm)


MODELS = {
    "llama": tiny("llama", tied=False),
    "llama tied": tiny("llama", tied=True),
    "qwen2": tiny("qwen2", tied=False),
}
FUSED = {
    "llama": tiny("llama", tied=False, fused=True),
    "llama tied": tiny("llama", tied=True, fused=True),
    "qwen2": tiny("qwen2", tied=False, fused=True),
}


def separate_logps(model: nn.Module, chains: list[TokenChain]) -> torch.Tensor:
    """The slow twin: one ordinary forward per chain, with the library's attention."""
    model.set_attn_implementation("sdpa")
    width = max(len(chain.completion) for chain in chains)
    rows = []
    for chain in chains:
        ids = torch.tensor([[*chain.prompt, *chain.completion]])
        every = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        own = every.gather(1, ids[0, 1:, None])[len(chain.prompt) - 1 :, 0]
        own = torch.where(torch.arange(len(own)) < chain.skipped, 0.0, own)
        rows.append(nn.functional.pad(own, (0, width - len(own))))
    return torch.stack(rows)


def assert_equal_to_separate(
    model: nn.Module, chains: list[TokenChain], tile: tuple[int, int], *, twin: nn.Module
) -> None:
    """Log-probabilities and gradients of `model`, packed, and of `twin`, chain by chain."""
    torch.manual_seed(1)
    model.set_attn_implementation(tree_attention.NAME)
    packed = chain_logps(model, TreeBatch.pack(chains), tile=tile)
    # A random weight per token: each value has its own part in the gradients.
    weights = torch.randn_like(packed)
    separate = separate_logps(twin, chains)
    torch.testing.assert_close(packed, separate, rtol=0, atol=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad((packed * weights).sum(), list(model.parameters())),
        torch.autograd.grad((separate * weights).sum(), list(twin.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def chain(prompt: list[int], completion: list[int], skipped: int = 0) -> TokenChain:
    return TokenChain(prompt=tuple(prompt), completion=tuple(completion), skipped=skipped)


TREES = [
    chain([1, 2, 3], [4, 5, 6, 7]),
    chain([1, 2, 3], [4, 5, 8], skipped=2),
    chain([1, 2, 3], [4, 5]),
    chain([1, 2, 3], [4, 5, 8]),
    chain([1, 9], [3, 4]),
    chain([7, 8], [1]),
]


@pytest.mark.parametrize("kept_weights", [0, 2**24])
@pytest.mark.parametrize("models", [MODELS, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tile", [(1, 1000), (3, 4), (1000, 1), (1000, 1000)])
def test_packed_trees_equal_separate_forwards(
    name: str,
    models: dict[str, nn.Module],
    tile: tuple[int, int],
    kept_weights: int,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tree_attention, "KEPT_WEIGHTS", kept_weights)
    assert_equal_to_separate(models[name], TREES, tile, twin=MODELS[name])


@pytest.mark.parametrize("name", ["llama", "llama tied"])
def test_the_gradient_of_the_head_goes_to_its_leaf(name: str):
    model = MODELS[name]
    model.set_attn_implementation(tree_attention.NAME)
    head = model.lm_head.weight
    leaf = nn.Parameter(head.detach().clone())
    batch = TreeBatch.pack(TREES)
    (whole,) = torch.autograd.grad(chain_logps(model, batch, tile=(3, 4)).sum(), head)
    logps = chain_logps(model, batch, head_leaf=leaf, tile=(3, 4))
    of_leaf, rest = torch.autograd.grad(logps.sum(), (leaf, head), allow_unused=True)
    assert (rest is None) == (name == "llama")  # tied, it is the embedding's
    torch.testing.assert_close(of_leaf + (0 if rest is None else rest), whole, rtol=0, atol=1e-12)


def test_the_gradient_of_a_leaf_is_summed_in_its_own_precision():
    model = tiny("llama", tied=False).bfloat16()
    model.set_attn_implementation(tree_attention.NAME)
    leaf = nn.Parameter(model.lm_head.weight.detach().float())
    logps = chain_logps(model, TreeBatch.pack(TREES), head_leaf=leaf, tile=(3, 4))
    (gradient,) = torch.autograd.grad(logps.sum(), leaf)
    assert gradient.dtype == torch.float32
    assert not torch.equal(gradient, gradient.bfloat16().float())


def test_a_head_that_is_not_trained_gets_no_gradient():
    model = tiny("llama", tied=False)
    model.set_attn_implementation(tree_attention.NAME)
    first = model.model.layers[0].mlp.up_proj.weight
    (whole,) = torch.autograd.grad(chain_logps(model, TreeBatch.pack(TREES)).sum(), first)
    model.lm_head.requires_grad_(False)
    chain_logps(model, TreeBatch.pack(TREES)).sum().backward()
    assert model.lm_head.weight.grad is None
    torch.testing.assert_close(first.grad, whole, rtol=0, atol=1e-12)


IDS = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@st.composite
def trees(draw: st.DrawFn) -> list[TokenChain]:
    """Chains down the branches of a random tree of nodes, empty ones and ones of a token too."""
    prompt = draw(IDS)
    nodes = [()]
    for ids in draw(st.lists(st.lists(st.integers(0, 9), max_size=4).map(tuple), max_size=8)):
        nodes.append(draw(st.sampled_from(nodes)) + ids)
    leaves = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=5))
    chains = []
    for leaf in leaves:
        completion = (*leaf, 12)
        skipped = draw(st.integers(0, len(completion)))
        chains.append(TokenChain(prompt=prompt, completion=completion, skipped=skipped))
    return chains


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    forest=st.lists(trees(), min_size=1, max_size=3),
    name=st.sampled_from(sorted(MODELS)),
    tile=st.tuples(st.integers(1, 4), st.integers(1, 20)),
    rows=st.integers(1, 8),
    kept_weights=st.sampled_from([0, 2**24]),
)
def test_any_forest_equals_separate_forwards(
    forest: list, name: str, tile: tuple[int, int], rows: int, kept_weights: int
):
    chains = [own for tree in forest for own in tree]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_attention, "MIN_ROWS", rows)
        patch.setattr(tree_attention, "MAX_ROWS", 2 * rows)
        patch.setattr(tree_attention, "KEPT_WEIGHTS", kept_weights)
        assert_equal_to_separate(FUSED[name], chains, tile, twin=MODELS[name])


@settings(max_examples=20, deadline=None)
@given(forest=st.lists(trees(), min_size=1, max_size=3))
def test_flex_attention_with_the_mask_of_a_gpu_equals_the_blocks(forest: list):
    layout = TreeBatch.pack([own for tree in forest for own in tree]).layout
    torch.manual_seed(0)
    query = torch.randn(1, 4, len(layout.ends), 8)
    key, value = torch.randn(2, 1, 2, len(layout.ends), 8)
    ours, _ = tree_attention.tree_attention(
        None, query, key, value, None, layout=layout, scaling=0.3
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        flex = flex_attention(
            query, key, value, block_mask=layout.block_mask, scale=0.3, enable_gqa=True
        )
    torch.testing.assert_close(ours, flex.transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_a_second_backward_adds_to_the_gradient_of_a_leaf_in_place():
    model = tiny("llama", tied=False)
    model.set_attn_implementation(tree_attention.NAME)
    leaf, batches = nn.Parameter(model.lm_head.weight.detach().clone()), (TREES[:4], TREES[2:])
    sums = [
        chain_logps(model, TreeBatch.pack(chains), head_leaf=leaf, tile=(3, 4)).sum()
        for chains in batches
    ]
    apart = [torch.autograd.grad(one, leaf, retain_graph=True)[0] for one in sums]
    sums[0].backward()
    assert leaf.grad is not None
    place = leaf.grad.data_ptr()
    sums[1].backward()
    assert leaf.grad.data_ptr() == place
    torch.testing.assert_close(leaf.grad, apart[0] + apart[1], rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return made


def test_no_more_logits_exist_at_once_than_a_tile_of_them():
    rows, width, vocabulary = 64, 4, 512
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    targets = torch.arange(rows).repeat_interleave(2)
    ids = torch.randint(vocabulary, (2 * rows,))
    for tile, most in (((8, 16), vocabulary * width), ((rows, vocabulary), rows * vocabulary)):
        with Largest() as seen:
            TargetLogps.apply(hidden, weight, None, targets, ids, tile).sum().backward()
        assert seen.elements == most
    assert math.prod(TILE) * 4 == 2**24  # bytes
