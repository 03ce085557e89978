"""What of a config says what is made, and what only how."""

from collections.abc import Mapping
from typing import Any

# Keys that change how a stage runs, not what it makes.
VOLATILE = {
    "cluster",
    "logger",
    "push_to_hub",
    "max_num_seqs",
    "max_num_batched_tokens",
    "memory_utilization",
    "cpu_kvcache_gb",
    "enforce_eager",
    "dry_run",
    "dry_run_problems",
    "latency_s",
    "log",
    *("urls", "api_key_env", "timeout_s", "hedge_after_s", "backoff_s"),
    *("backoff_max_s", "take_out_after", "probe_every_s", "give_up_after_s"),
    "tensor_parallel",
    *("processes", "remembered"),
    *("strategy", "devices", "nodes", "launch", "checkpoint_every_s", "samples"),
}


def without_volatile(config: Any) -> Any:
    """A config without the keys that change how a stage runs, at any depth."""
    if isinstance(config, Mapping):
        return {k: without_volatile(v) for k, v in config.items() if k not in VOLATILE}
    if isinstance(config, list | tuple):
        return [without_volatile(value) for value in config]
    return config
