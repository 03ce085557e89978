"""The fused functions against transformers' own modules, and against finite differences."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from marco.training.fused import GatedLinear, MadeOnce, NormedLinear, RMSNorm, SwiGLU, fuse

from ..test_logps import SIZES


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-3)[0], (x, weight))
    query, bias, key = (
        torch.randn(size, dtype=x.dtype, requires_grad=True) for size in ((2, 4), (2,), (3, 4))
    )
    assert torch.autograd.gradcheck(_two_of_a_norm, (x, weight, query, bias, key))
    gate, up = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(SwiGLU.apply, (gate, up))
    down = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GatedLinear.apply, (gate, up, down))
    assert torch.autograd.gradcheck(GatedLinear.apply, (gate, up, down.detach()))


def _two_of_a_norm(x, weight, query, bias, key):
    normed, scale = RMSNorm.apply(x, weight, 1e-3)
    made_of = (x, weight, scale, MadeOnce())
    return NormedLinear.apply(normed, query, bias, *made_of), NormedLinear.apply(
        normed, key, None, *made_of
    )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_norm_goes_into_is_bit_by_bit_what_plain_products_give(dtype, autocast):
    torch.manual_seed(0)
    sizes = ((5, 8), (8,), (4, 8), (4,), (6, 8))
    given = [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]
    x, weight, query, bias, key = given
    linear = nn.functional.linear
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        normed, _ = RMSNorm.apply(x, weight, 1e-3)
        plain = linear(normed, query, bias), linear(normed, key)
        again = _two_of_a_norm(*given)
    directions = [torch.randn_like(out) for out in plain]
    expected = torch.autograd.grad(plain, given, directions)
    for _ in range(2):  # what is made once in a backward is made anew in the next
        grads = torch.autograd.grad(again, given, directions, retain_graph=True)
        for one, other in zip((*again, *grads), (*plain, *expected), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_a_norms_output_is_not_kept_and_is_made_once_for_all_that_it_went_into(monkeypatch):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    fuse(model)
    made: list[torch.Tensor] = []
    of = MadeOnce.of
    holders: set[MadeOnce] = set()

    def seen(self: MadeOnce, *made_of: torch.Tensor) -> torch.Tensor:
        holders.add(self)
        made.append(of(self, *made_of))
        return made[-1]

    monkeypatch.setattr(MadeOnce, "of", seen)
    normed: list[torch.Tensor] = []  # held, so that nothing else takes their place
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.register_forward_hook(lambda *given: normed.append(given[-1]))
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        out = model.model(input_ids=torch.randint(13, (2, 7))).last_hidden_state
    layers = len(model.model.layers)
    assert len(normed) == 2 * layers
    assert not {x.data_ptr() for x in kept} & {x.data_ptr() for x in normed}
    out.sum().backward()
    assert len(made) == 5 * layers  # queries, keys, values, gate and up
    assert len({id(x) for x in made}) == len(holders) == 2 * layers
    assert all(holder.normed is None for holder in holders)  # given back on the way


def test_below_an_adapter_nothing_is_kept_for_a_weight_that_stays():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).requires_grad_(False)
    fuse(model)
    query = model.model.layers[0].self_attn.q_proj
    x = torch.randn(2, SIZES["hidden_size"], requires_grad=True)
    normed = model.model.layers[0].input_layernorm(x)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        query(normed)
    assert [x.data_ptr() for x in kept] == [query.weight.data_ptr()]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_gives_what_it_gave(kind: str, dtype: torch.dtype, tied: bool):
    torch.manual_seed(0)
    model: nn.Module = (
        LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
        if kind == "llama"
        else Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.to(dtype)
    ids = torch.randint(13, (2, 7))
    results = []
    for _ in range(2):
        loss = model(input_ids=ids, labels=ids).loss
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        fuse(model)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for plain, fused in zip(*results, strict=True):
        assert fused.dtype == plain.dtype and fused.layout == plain.layout
        assert (fused - plain).norm() <= tolerance * plain.norm() + 1e-6


def test_a_gate_keeps_what_it_is_made_of_alone():
    gate, up = (torch.randn(5, 8, requires_grad=True) for _ in range(2))
    down = nn.Linear(8, 4, bias=False)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        GatedLinear.apply(gate, up, down.weight)
    assert sorted(x.numel() for x in kept) == [32, 40, 40]


def test_under_autocast_gradients_have_the_dtypes_of_what_they_are_of():
    gate, up = (torch.randn(5, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    weight = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = GatedLinear.apply(gate, up, weight)
        plain = nn.functional.linear(nn.functional.silu(gate) * up, weight)
    assert out.dtype == torch.bfloat16
    for one, other in zip(
        torch.autograd.grad(out.float().sum(), (gate, up, weight)),
        torch.autograd.grad(plain.float().sum(), (gate, up, weight)),
        strict=True,
    ):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= 0.02 * other.norm()
