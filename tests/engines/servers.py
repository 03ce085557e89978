"""A completions server that answers by its prompts, and fails as it is told."""

import asyncio
import hashlib
import json
import random
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp import web

from marco.engines.openai import OpenAIConfig

Trouble = Callable[[random.Random], str | None]


class Server:
    """Serves `POST /v1/completions` on a port of its own, in a thread.

    An answer depends on the prompt and the sample only, so any two servers agree. `trouble` says
    how each request fails: `error`, `reset`, `stall`, `truncated`, `aborted`, `odd`, `slow`,
    `no entry`, or None.
    """

    def __init__(self, trouble: Trouble = lambda _: None, *, seed: int = 0) -> None:
        self.trouble, self.chance = trouble, random.Random(seed)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.loop = asyncio.new_event_loop()
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.started.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        """Die: the port is closed, and what was under way is cut off."""
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)

    def start(self) -> None:
        """Come back on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(self.port), self.loop).result(10)

    def close(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._listen(0))
        self.started.set()
        self.loop.run_forever()

    async def _listen(self, port: int) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/completions", self._complete)
        self.runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        trouble = self.trouble(self.chance)
        if trouble == "error":
            return web.json_response({"error": "overloaded"}, status=self.chance.choice([500, 503]))
        if trouble == "no entry":  # as some repeat what they were told
            return web.json_response({"no such key": dict(request.headers)}, status=401)
        if trouble == "reset":
            assert request.transport is not None
            request.transport.abort()
        if trouble == "stall":
            await asyncio.sleep(60)
        if trouble == "slow":
            await asyncio.sleep(1)
        given = answer(body)
        if trouble == "aborted":  # what vLLM says of a request that a pause has cut off
            given["choices"][0] |= {"text": "half a ", "finish_reason": "abort"}
        if trouble == "odd":
            given["usage"] = ["of another form"]
        text = json.dumps(given)
        if trouble == "truncated":
            text = text[: len(text) // 2]
        return web.Response(text=text, content_type="application/json")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """An answer drawn from the prompt: a number of 0..19 for each sample."""
    samples = body.get("n", 1)
    texts = []
    for i in range(samples):
        drawn = hashlib.sha256(f"{body['prompt']}/{body.get('seed')}/{i}".encode()).digest()
        texts.append(f" {drawn[0] % 20}")
    return {
        "choices": [
            {"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(texts)
        ],
        "usage": {
            "completion_tokens": 2 * samples,
            "prompt_tokens_details": {"cached_tokens": len(body["prompt"]) // 2},
        },
    }


def config(*servers: Server | str, **changes: Any) -> OpenAIConfig:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    values: dict[str, Any] = {
        "name": "openai",
        "urls": urls,
        "served_model": None,
        "api_key_env": "MARCO_TEST_KEY",
        "max_num_seqs": 4,
        "max_model_len": 1000,
        "honours_seeds": False,
        "timeout_s": 60.0,  # a busy machine is no trouble; tests of trouble are short of patience
        "hedge_after_s": None,
        "backoff_s": 0.01,
        "backoff_max_s": 0.1,
        "take_out_after": 3,
        "probe_every_s": 0.1,
        "give_up_after_s": 30.0,
    }
    return OpenAIConfig.model_validate(values | changes)
