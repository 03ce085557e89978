"""vLLM in this process, on CPU or GPU."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from marco.engines.protocol import Completion, Request, Response
from marco.errors import UserError


class VLLMConfig(BaseModel):
    """Settings of a vLLM engine; YAML (`conf/engine/`) owns the numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["vllm"]
    max_num_seqs: PositiveInt
    max_model_len: PositiveInt
    max_num_batched_tokens: PositiveInt
    dtype: Literal["bfloat16", "float16", "float32"]
    enforce_eager: bool
    memory_utilization: float = Field(gt=0, le=1)
    cpu_kvcache_gb: PositiveInt
    tensor_parallel: PositiveInt
    block_size: PositiveInt | None


class VLLMEngine:
    """Continuous batching over one model; requests of the same prefix share its cache.

    Seeds are not honoured: on CPU a seed per request can crash vLLM (a partial prefill), and on no
    device are its samples the same in another batch.
    """

    honours_seeds = False

    def __init__(self, model: Path | str, config: VLLMConfig) -> None:
        self.max_in_flight = config.max_num_seqs
        self.waiting: dict[str, Request] = {}
        self.max_model_len = config.max_model_len
        self.refused: list[Response] = []
        self.engine = start(model, config).llm_engine

    def submit(self, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        if len(request.prompt_ids) >= self.max_model_len:
            # No room for a token. vLLM would raise, and the work on all others would be lost.
            cut = Completion(text="", tokens=0, finish="length")
            self.refused.append(Response(key=request.key, completions=(cut,) * request.n))
            return
        self.waiting[request.key] = request
        self.engine.add_request(
            request.key,
            TokensPrompt(prompt_token_ids=list(request.prompt_ids)),
            SamplingParams(
                n=request.n,
                temperature=request.sampling.temperature,
                top_p=request.sampling.top_p,
                max_tokens=request.sampling.max_tokens,
                stop=list(request.stop),
                output_kind=RequestOutputKind.FINAL_ONLY,  # else a last sample comes alone
            ),
        )

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        """One step of the engine: a token for every running sequence.

        A prompt that fills `max_model_len` is answered at once, with nothing, cut off by length.
        """
        refused, self.refused = self.refused, []
        if not self.engine.has_unfinished_requests():
            return refused
        done = [self._response(output) for output in self.engine.step() if output.finished]
        return refused + done

    def close(self) -> None:
        self.waiting.clear()
        del self.engine

    def _response(self, output: Any) -> Response:
        request = self.waiting.pop(output.request_id)
        samples = sorted(output.outputs, key=lambda sample: sample.index)
        return Response(
            key=request.key,
            completions=tuple(
                Completion(text=s.text, tokens=len(s.token_ids), finish=s.finish_reason or "stop")
                for s in samples
            ),
            cached_tokens=output.num_cached_tokens or 0,
        )


def import_vllm() -> Any:
    """vLLM's `LLM`, its environment set before; raises UserError where it cannot be imported."""
    # In-process on CPU: starts in seconds, and 1.5 times the tokens/s.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    logging.getLogger("vllm").setLevel(logging.ERROR)  # while it is imported, and not set up yet
    try:
        from vllm import LLM
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another build
        raise UserError(
            f"vLLM cannot be imported ({error}): run `make setup`, or install marco[cpu] or [gpu]"
        ) from error
    return LLM


def start(model: Path | str, config: VLLMConfig) -> Any:
    """vLLM's `LLM` with a config's settings; UserError where it cannot start."""
    LLM = import_vllm()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(config.cpu_kvcache_gb))
    options: dict[str, Any] = {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "gpu_memory_utilization": config.memory_utilization,
        "tensor_parallel_size": config.tensor_parallel,
        "enforce_eager": config.enforce_eager,
        "enable_prefix_caching": True,
        "use_tqdm_on_load": False,
    }
    if config.block_size is not None:
        options["block_size"] = config.block_size
    try:
        return LLM(model=str(model), **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"vLLM cannot start {model}: {first}") from error
