"""The gateway: everything that a request passes before it reaches Ray Serve LLM's application.

Plain ASGI, so that streams pass through it piece by piece; it holds no more than the body of each
request under way, and no more requests than `max_in_flight`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cgd_ray.serving.api_keys import KeySource
from cgd_ray.serving.bounds import (
    FORWARDED_HEADERS,
    HEALTH,
    Limits,
    Refusal,
    check_headers,
    check_route,
    too_long,
)
from cgd_ray.serving.exposure import is_loopback
from cgd_ray.serving.request_body import check_body

_CLIENT_GONE = 499  # nginx's status for it: nobody receives it, the metrics do


@dataclass(frozen=True, slots=True)
class Page:
    """A file that is served as it is, to anybody."""

    content_type: str
    content: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What the gateway enforces."""

    limits: Limits
    routes: Mapping[str, str]  # path -> method
    pages: Mapping[str, Page]  # path -> file; their paths are among the routes
    max_in_flight: int
    retry_after_s: int
    request_timeout_s: float
    body_timeout_s: float
    api_keys_file: str | None
    api_keys_env: str


class Meter(Protocol):
    """Counts what passes the gateway."""

    def started(self, num_in_flight: int) -> None:
        """A request was admitted; so many are under way."""
        ...

    def finished(self, path: str, status: int, seconds: float, num_in_flight: int) -> None:
        """A request ended; `path` is a route or "other"."""
        ...


class Gateway:
    """ASGI middleware: route, key, size, queue, bounds and time, in this order.

    Raises:
        UserError: the API keys cannot be used.
    """

    def __init__(self, app: ASGIApp, *, policy: Policy, make_meter: Callable[[], Meter]) -> None:
        self._app = app
        self._policy = policy
        self._meter = make_meter()
        self._keys = KeySource(policy.api_keys_file, policy.api_keys_env)
        self._keys.current()  # unusable keys end the start, not the first request
        self._num_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket: nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        start = time.monotonic()
        answer = _Answer(send)
        try:
            await self._answer(scope, receive, answer)
        finally:
            path = scope["path"] if scope["path"] in self._policy.routes else "other"
            seconds = time.monotonic() - start
            self._meter.finished(path, answer.status, seconds, self._num_in_flight)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        path, policy = scope["path"], self._policy
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = check_route(scope["method"], path, policy.routes)
        if refusal is None and path in policy.pages:
            await answer.page(policy.pages[path])
            return
        if refusal is None and path == HEALTH:
            await answer.page(Page("application/json", b'{"status":"ok"}'))
            return
        refusal = refusal or self._stranger(scope, headers)
        if refusal is None and scope["method"] == "POST":
            refusal = check_headers(headers, policy.limits)
        if refusal is None and self._num_in_flight >= policy.max_in_flight:
            refusal = self._busy()
        if refusal is not None:
            await answer.refuse(refusal)
            return
        self._num_in_flight += 1
        self._meter.started(self._num_in_flight)
        try:
            await self._forward(scope, receive, answer)
        finally:
            self._num_in_flight -= 1

    def _stranger(self, scope: Scope, headers: Mapping[str, str]) -> Refusal | None:
        """Return the refusal of a caller who may not ask: 401, or 403 where there are no keys."""
        ring = self._keys.current()
        if ring.digests:
            if ring.accepts(headers.get("authorization")):
                return None
            return Refusal(401, "send one of this server's API keys", "invalid_api_key")
        client = (scope.get("client") or ("", 0))[0]
        # The name too: a web page elsewhere can point a name of its own at this address.
        if is_loopback(client) and is_loopback(_host_name(headers.get("host", ""))):
            return None
        return Refusal(
            403,
            "without API keys only this machine is served: set serve.api_keys_file",
            "no_api_keys",
        )

    def _busy(self) -> Refusal:
        limit = self._policy.max_in_flight
        return Refusal(
            429,
            f"{limit} requests are under way (serve.max_in_flight): try again later",
            "overloaded",
            retry_after_s=self._policy.retry_after_s,
        )

    async def _forward(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        policy = self._policy
        body = b""
        if scope["method"] == "POST":
            given = await _read_body(receive, policy)
            refusal = given if isinstance(given, Refusal) else None
            body = given if isinstance(given, bytes) else b""
            refusal = refusal or check_body(scope["path"], body, policy.limits)
            if refusal is not None:
                await answer.refuse(refusal)
                return
        try:
            async with asyncio.timeout(policy.request_timeout_s):
                await self._app(_shown(scope), _replayed(body, receive), answer.send)
        except TimeoutError:
            await answer.refuse(
                Refusal(
                    504,
                    f"no answer within {policy.request_timeout_s:g} s (serve.request_timeout_s)",
                    "timeout",
                )
            )


class _Answer:
    """One response: its status, and whether it can still become an error."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._streams = False
        self._ended = False
        self.status = _CLIENT_GONE

    async def send(self, message: Message) -> None:
        """Pass a message of the application on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._streams = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error; in a stream that has begun, as its last event."""
        if self._ended:
            return
        if self.status != _CLIENT_GONE:
            event = b"data: " + refusal.body() + b"\n\n" if self._streams else b""
            self.status = refusal.status
            await self._send({"type": "http.response.body", "body": event})
            return
        headers = [("content-type", "application/json")]
        if refusal.retry_after_s is not None:
            headers.append(("retry-after", str(refusal.retry_after_s)))
        if refusal.status == 401:
            headers.append(("www-authenticate", "Bearer"))
        await self._whole(refusal.status, headers, refusal.body())

    async def page(self, page: Page) -> None:
        """Answer with a file."""
        await self._whole(200, [("content-type", page.content_type), *page.headers], page.content)

    async def _whole(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        pairs = [*headers, ("content-length", str(len(content)))]
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        start: dict[str, Any] = {"type": "http.response.start", "status": status}
        await self.send({**start, "headers": encoded})
        await self.send({"type": "http.response.body", "body": content})


async def _read_body(receive: Receive, policy: Policy) -> bytes | Refusal:
    """Return the body, or why there is none: too long, too slow, or broken off."""
    parts: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(policy.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return Refusal(400, "the request broke off", "incomplete_request")
                parts.append(message.get("body", b""))
                num_bytes += len(parts[-1])
                if num_bytes > policy.limits.max_body_bytes:
                    return too_long(policy.limits)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return Refusal(
            408,
            f"the request's body took over {policy.body_timeout_s:g} s (serve.body_timeout_s)",
            "timeout",
        )


def _shown(scope: Scope) -> Scope:
    """Return the request as the application sees it: without the key."""
    headers = [pair for pair in scope["headers"] if pair[0].decode("latin-1") in FORWARDED_HEADERS]
    return {**scope, "headers": headers}


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once more, then goes on with the connection."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
