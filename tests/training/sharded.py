"""One of two ranks: a model in FSDP2's shards against the whole, in float64 (test_devices.py)."""

import torch
from torch.distributed.device_mesh import init_device_mesh
from transformers import LlamaConfig, LlamaForCausalLM

from marco.logps import chain_logps
from marco.training import tree_attention
from marco.training.fused import fuse
from marco.training.strategies import gather, shard
from marco.training.tree_batch import TokenChain, TreeBatch


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=13,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    net = LlamaForCausalLM(config).double()
    net.set_attn_implementation(tree_attention.NAME)
    fuse(net)
    return net


def batch(rank: int) -> TreeBatch:
    chains = [((1, 2), (3, 4, 5)), ((1, 2), (3, 6))], [((7, 8, 9), (1, 2)), ((7,), (5, 5, 5))]
    return TreeBatch.pack([TokenChain(prompt=p, completion=c) for p, c in chains[rank]])


def main() -> None:
    mesh = init_device_mesh("cpu", (2,))
    rank = mesh.get_local_rank()
    whole, sharded = model(), model()
    logps_of = shard(sharded, mesh, "64-true")
    # Two forwards a step, as with two micro-batches; each rank adds what it finds.
    for turn in (0, 1):
        logps_of(batch((rank + turn) % 2)).sum().backward()
        for each in (0, 1):
            chain_logps(whole, batch(each)).sum().backward()
    for (name, ours), theirs in zip(sharded.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad.full_tensor(), theirs.grad, rtol=0, atol=1e-6, msg=name
        )
    gathered = gather(sharded)
    if rank == 0:
        for ours, theirs in zip(gathered.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-6)
    print("same", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
