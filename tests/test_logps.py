"""Packed log-probabilities against separate forwards: values and all gradients, in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from marco.logps import chain_logps
from marco.training import tree_attention
from marco.training.tree_batch import TreeBatch

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


def tiny(kind: str, *, tied: bool) -> nn.Module:
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    model = model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    for layer in model.model.layers:
        layer.input_layernorm = DoubleNorm(layer.input_layernorm)
        layer.post_attention_layernorm = DoubleNorm(layer.post_attention_layernorm)
    model.model.norm = DoubleNorm(model.model.norm)
    return model


MODELS = {
    "llama": tiny("llama", tied=False),
    "llama tied": tiny("llama", tied=True),
    "qwen2": tiny("qwen2", tied=False),
}


def separate_logps(model: nn.Module, chains: list) -> torch.Tensor:
    """The slow twin: one ordinary forward per chain, with the library's attention."""
    model.set_attn_implementation("sdpa")
    width = max(len(completion) for _, completion in chains)
    rows = []
    for prompt, completion in chains:
        ids = torch.tensor([[*prompt, *completion]])
        every = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        own = every.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
        rows.append(nn.functional.pad(own, (0, width - len(completion))))
    return torch.stack(rows)


def assert_equal_to_separate(model: nn.Module, chains: list, head_rows: int) -> None:
    torch.manual_seed(1)
    model.set_attn_implementation(tree_attention.NAME)
    packed = chain_logps(model, TreeBatch.pack(chains), head_rows=head_rows)
    # A random weight per token: each value has its own part in the gradients.
    weights = torch.randn_like(packed)
    separate = separate_logps(model, chains)
    torch.testing.assert_close(packed, separate, rtol=0, atol=1e-9)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((packed * weights).sum(), parameters),
        torch.autograd.grad((separate * weights).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


TREES = [
    ([1, 2, 3], [4, 5, 6, 7]),
    ([1, 2, 3], [4, 5, 8]),
    ([1, 2, 3], [4, 5]),
    ([1, 2, 3], [4, 5, 8]),
    ([1, 9], [3, 4]),
    ([7, 8], [1]),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("head_rows", [1, 3, 1000])
def test_packed_trees_equal_separate_forwards(name: str, head_rows: int):
    assert_equal_to_separate(MODELS[name], TREES, head_rows)


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    chains=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5),
    name=st.sampled_from(sorted(MODELS)),
    head_rows=st.integers(1, 4),
)
def test_any_sharing_equals_separate_forwards(chains: list, name: str, head_rows: int):
    assert_equal_to_separate(MODELS[name], chains, head_rows)
