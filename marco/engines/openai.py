"""Any server with OpenAI's completions interface, in as many replicas as there are.

A problem stays with one replica, whose prefix cache then holds its prompts. What fails is asked for
again, of another replica; one that fails repeatedly is taken out, probed, and brought back.
"""

import asyncio
import hashlib
import itertools
import json
import os
import queue
import random
import resource
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

import aiohttp
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from marco.engines.protocol import Completion, Request, Response
from marco.errors import UserError

NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError)  # JSON of another form, or none
OF_REPLICA = {401, 403, 404}  # what a server says that is set up otherwise than the others
PASSING = {408, 409, 425, 429}  # of the client's errors, those that another attempt may mend
SHORTEST_KEY = 6  # characters; what is shorter stands for none (`x`, `none`), and is in any text


class OpenAIConfig(BaseModel):
    """Replicas of a server, and what is done about those that fail; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["openai"]
    urls: list[HttpUrl] = Field(min_length=1)
    served_model: str | None
    api_key_env: str
    max_num_seqs: PositiveInt
    max_model_len: PositiveInt
    honours_seeds: bool
    timeout_s: PositiveFloat
    hedge_after_s: PositiveFloat | None
    backoff_s: PositiveFloat
    backoff_max_s: PositiveFloat
    take_out_after: PositiveInt
    probe_every_s: PositiveFloat
    give_up_after_s: NonNegativeFloat


class _Failed(Exception):
    """A replica did not answer as it should; another attempt may."""

    def __init__(self, replica: "_Replica", error: Exception) -> None:
        super().__init__(f"{replica.url}: {_name(error)}")
        self.replica = replica


class _Replica:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.in_flight = self.failures = 0  # failures: one after the other, without an answer
        self.is_out = False
        self.refusal: UserError | None = None  # since its last answer


class OpenAIEngine:
    """Completions over HTTP, with the prompts in token ids.

    Seeds are sent only where the config says that the server honours them. Raises UserError from
    `poll` where a server refuses a request for good, or all refuse this client (what they said),
    and when no replica has answered for `give_up_after_s`.
    """

    def __init__(self, model: str, config: OpenAIConfig, *, seed: int = 0) -> None:
        self.model, self.config, self.seed = config.served_model or model, config, seed
        self.max_in_flight = config.max_num_seqs * len(config.urls)
        self.honours_seeds = config.honours_seeds
        self.key = os.environ.get(config.api_key_env)
        self.replicas = [_Replica(str(url)) for url in config.urls]
        self.order = lru_cache(maxsize=4096)(self._order)  # of the problems that are open
        _allow_connections(2 * self.max_in_flight)  # hedged requests too
        self.answers: queue.SimpleQueue[Response | UserError] = queue.SimpleQueue()
        self.refused: UserError | None = None
        self.jitter = random.Random()
        self.probes: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks weakly
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name=f"openai {model}", daemon=True)
        self.thread.start()

    # Called by the search ------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        asyncio.run_coroutine_threadsafe(self._answer(request), self.loop)

    def poll(self, wait_s: float = 0.1) -> Sequence[Response]:
        """What has come; what was refused for good is raised once all before it was handed out."""
        found: list[Response] = []
        with suppress(queue.Empty):
            answer = self.refused or self.answers.get(timeout=wait_s)
            while not isinstance(answer, UserError):
                found.append(answer)
                answer = self.answers.get_nowait()
            self.refused = answer
        if self.refused and not found:
            raise self.refused
        return found

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    # In the thread of the event loop -------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._connect())
        self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.session.close())
        self.loop.close()

    async def _connect(self) -> None:
        self.session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=aiohttp.ClientTimeout(total=self.config.timeout_s, sock_connect=10),
            connector=aiohttp.TCPConnector(limit=0),
        )
        self.last_answer = self.loop.time()

    async def _answer(self, request: Request) -> None:
        """Ask until there is an answer; what goes wrong for good is told by `poll`."""
        try:
            self.answers.put(await self._ask_until_answered(request))
        except UserError as error:
            self.answers.put(error)
        except Exception as error:  # else the search would wait for ever
            self.answers.put(UserError(f"{request.key}: {type(error).__name__}: {error}"))

    async def _ask_until_answered(self, request: Request) -> Response:
        room = self.config.max_model_len - len(request.prompt_ids)
        if room <= 0:
            cut = Completion(text="", tokens=0, finish="length")
            return Response(key=request.key, completions=(cut,) * request.n)
        body = self._body(request, room)
        avoid: _Replica | None = None
        asked = self.loop.time()
        for attempt in itertools.count():
            try:
                return await self._hedged(request, body, avoid)
            except _Failed as failure:
                idle = self.loop.time() - max(asked, self.last_answer)
                if idle > self.config.give_up_after_s:
                    raise UserError(
                        f"no replica of {self.model} has answered for {idle:.0f} s "
                        f"({', '.join(r.url for r in self.replicas)}); the last error: {failure}. "
                        "What is finished is kept: start again when a server is there"
                    ) from failure
                avoid = failure.replica
            doubled = self.config.backoff_s * 2 ** min(attempt, 32)
            longest = min(self.config.backoff_max_s, doubled)
            await asyncio.sleep(longest * (0.5 + self.jitter.random() / 2))
        raise AssertionError("unreachable")

    async def _hedged(
        self, request: Request, body: dict[str, Any], avoid: _Replica | None
    ) -> Response:
        """The first answer; another replica with room is asked too when the first takes long."""
        replica = self._choose(request, avoid)
        first = self._ask(replica, request, body)
        done, _ = await asyncio.wait({first}, timeout=self.config.hedge_after_s)
        spare = None if done else self._with_room(request, {avoid, replica})
        if spare is None:
            return await first
        response = await _first_success({first, self._ask(spare, request, body)})
        if not first.done():  # else one that hangs would be asked, and waited for, for ever
            self._note_failure(replica, TimeoutError("another was faster by hedge_after_s"))
        return response

    def _choose(self, request: Request, avoid: _Replica | None) -> _Replica:
        """The problem's replica; the next in its order where that is out, full, or to avoid."""
        return self._with_room(request, {avoid}) or min(
            self.order(request.problem), key=lambda r: (r.is_out, r is avoid, self._is_full(r))
        )

    def _with_room(self, request: Request, avoid: set[_Replica | None]) -> _Replica | None:
        for replica in self.order(request.problem):
            if not (replica.is_out or replica in avoid or self._is_full(replica)):
                return replica
        return None

    def _is_full(self, replica: _Replica) -> bool:
        return replica.in_flight >= self.config.max_num_seqs

    def _order(self, problem: str) -> list[_Replica]:
        """Rendezvous hashing: when a replica goes, only its own problems move."""

        def rank(replica: _Replica) -> bytes:
            digest = hashlib.blake2b(f"{replica.url}\0{problem}".encode(), digest_size=8)
            return digest.digest()

        return sorted(self.replicas, key=rank)

    def _ask(
        self, replica: _Replica, request: Request, body: dict[str, Any]
    ) -> asyncio.Task[Response]:
        """Ask a replica, which holds its places from now until the task's end, however it ends."""

        def free(_: object) -> None:
            replica.in_flight -= request.n

        replica.in_flight += request.n
        task = asyncio.create_task(self._answer_of(replica, request, body))
        task.add_done_callback(free)
        return task

    async def _answer_of(
        self, replica: _Replica, request: Request, body: dict[str, Any]
    ) -> Response:
        try:
            response = _read(request, await self._post(replica, body))
        except (aiohttp.ClientError, OSError, *NO_ANSWER) as error:
            if getattr(error, "status", None) not in PASSING:
                self._note_failure(replica, error)
            raise _Failed(replica, error) from error
        replica.failures, replica.refusal = 0, None
        self.last_answer = self.loop.time()
        return response

    async def _post(self, replica: _Replica, body: dict[str, Any], **options: Any) -> Any:
        """The JSON of an answer; UserError where no server will ever take the request."""
        async with self.session.post(f"{replica.url}/completions", json=body, **options) as reply:
            text = await reply.text()
            if 400 <= reply.status < 500 and reply.status not in PASSING:
                if self.key and len(self.key) >= SHORTEST_KEY:  # some repeat it in what they refuse
                    text = text.replace(self.key, "[removed]")
                refusal = f"{replica.url} refuses: HTTP {reply.status}: {_short(text)}"
                replica.refusal = UserError(refusal)
                by_all = all(other.refusal for other in self.replicas)
                if by_all or reply.status not in OF_REPLICA:
                    raise replica.refusal
            reply.raise_for_status()
            return json.loads(text)

    def _body(self, request: Request, room: int) -> dict[str, Any]:
        sampling = request.sampling
        body = {
            "model": self.model,
            "prompt": list(request.prompt_ids),
            "n": request.n,
            "max_tokens": min(sampling.max_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(request.stop),
        }
        if self.honours_seeds:
            name = f"{self.seed}/{request.key}".encode()
            body["seed"] = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest()) >> 1
        return body

    def _note_failure(self, replica: _Replica, error: Exception) -> None:
        replica.failures += 1
        if not replica.is_out and replica.failures >= self.config.take_out_after:
            replica.is_out = True
            print(f"  {replica.url} is taken out: {replica.refusal or _name(error)}", flush=True)
            self.probes.add(asyncio.create_task(self._probe(replica)))

    async def _probe(self, replica: _Replica) -> None:
        """Ask for one token now and then, and bring the replica back when it comes."""
        body = {"model": self.model, "prompt": [0], "max_tokens": 1}
        while replica.is_out:
            await asyncio.sleep(self.config.probe_every_s * (0.5 + self.jitter.random()))
            with suppress(aiohttp.ClientError, OSError, ValueError, UserError):
                timeout = aiohttp.ClientTimeout(total=self.config.probe_every_s)
                await self._post(replica, body, timeout=timeout)
                replica.is_out, replica.failures, replica.refusal = False, 0, None
                print(f"  {replica.url} is back", flush=True)


async def _first_success(tasks: set[asyncio.Task[Response]]) -> Response:
    """The result of the first task that has one, or the failure of the last; ends the others."""
    pending = tasks
    try:
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            failures = [task.exception() for task in done]
            for task, failure in zip(done, failures, strict=True):
                if failure is None:
                    return task.result()
            if not pending:
                raise next(failure for failure in failures if failure is not None)
    finally:
        for task in pending:
            task.cancel()


def _allow_connections(number: int) -> None:
    """Raise this process's limit of open files, one for each connection, as far as it may."""
    kept = 512  # files of everything else
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number + kept:
        most = number + kept if hard == resource.RLIM_INFINITY else min(number + kept, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _read(request: Request, answer: Any) -> Response:
    """The answer as a response; one of NO_ANSWER for what is none, or was broken off."""
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    if len(choices) != request.n:
        raise ValueError(f"{len(choices)} choices for n = {request.n}")
    usage = answer.get("usage") or {}
    # The interface tells the tokens of all choices together.
    each, rest = divmod(int(usage["completion_tokens"]), request.n)
    return Response(
        key=request.key,
        completions=tuple(
            Completion(
                # JSON can hold half a character, which neither a file nor a tokenizer takes.
                text=str(choice["text"]).encode("utf-8", "replace").decode(),
                tokens=each + (i < rest),
                finish=_finish(choice["finish_reason"]),
            )
            for i, choice in enumerate(choices)
        ),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
    )


def _finish(reason: Any) -> str:
    if reason not in ("stop", "length"):  # `abort`: the server was paused, and half is missing
        raise ValueError(f"finish_reason {reason!r}")
    return reason


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."


def _name(error: Exception) -> str:
    return f"{type(error).__name__} {_short(str(error))}".strip()
