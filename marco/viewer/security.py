"""What stands between the page and the rest of the world: hosts, origins, and what may run."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# Nothing but the server's own files runs or is loaded, and no text in the page becomes code.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Send], Awaitable[None]]


class Guard:
    """Refuses what does not come to this server's own address from its own page.

    A name that an attacker points at this machine is another host (DNS rebinding); a page from
    elsewhere has another origin. Every answer carries `HEADERS`.
    """

    def __init__(self, app: App, *, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        if reason := self._refusal(scope["headers"]):
            await _refuse(reason, with_headers)
        else:
            await self.app(scope, receive, with_headers)

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        values: dict[str, list[str]] = {}
        for name, value in headers:
            values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = values.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "another host"
        if any(origin != f"http://{hosts[0]}" for origin in values.get("origin", [])):
            return "another origin"
        # A link from elsewhere may lead to the page, but nothing from elsewhere may read from it.
        is_from_elsewhere = any(
            v in ("cross-site", "same-site") for v in values.get("sec-fetch-site", [])
        )
        if is_from_elsewhere and values.get("sec-fetch-mode") != ["navigate"]:
            return "another site"
        return None


async def _refuse(reason: str, send: Send) -> None:
    body = f"refused: {reason}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
