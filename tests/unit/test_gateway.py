"""The gateway as ASGI: who gets in, how much, how long. No Ray, no sockets."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cgd_ray.errors import UserError
from cgd_ray.serving.bounds import ROUTES, Limits
from cgd_ray.serving.gateway import Gateway, Page, Policy

KEY = "a-key-of-this-test"
CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
POLICY = Policy(
    limits=Limits(
        max_body_bytes=200,
        max_tokens=64,
        max_choices=4,
        structured_outputs=False,
        models=frozenset("m"),
    ),
    routes={**ROUTES, "/": "GET"},
    pages={"/": Page("text/html", b"<p>", (("content-security-policy", "default-src 'none'"),))},
    max_in_flight=2,
    retry_after_s=7,
    request_timeout_s=5.0,
    body_timeout_s=5.0,
    api_keys_file=None,
    api_keys_env="CGD_TEST_NO_KEYS",
)


@dataclass
class Seen:
    """What the gateway's meter was told, and what reached the application."""

    bodies: list[bytes] = field(default_factory=list)
    most_in_flight: int = 0
    finished: list[tuple[str, int]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cancelled: int = 0

    def started(self, num_in_flight: int) -> None:
        self.most_in_flight = max(self.most_in_flight, num_in_flight)

    def __call__(self) -> "Meter":
        return Meter(self)


@dataclass
class Meter:
    seen: Seen

    def started(self, num_in_flight: int) -> None:
        self.seen.started(num_in_flight)

    def finished(self, path: str, status: int, seconds: float, num_in_flight: int) -> None:
        self.seen.finished.append((path, status))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return json.loads(self.body)["error"]["code"]


def application(seen: Seen, *, hold: Callable[[], Any] | None = None, stream: bool = False) -> Any:
    """Return an application that reads the body, waits, and answers `ok`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        if scope["method"] == "POST":
            seen.bodies.append((await receive())["body"])
        kind = b"text/event-stream; charset=utf-8" if stream else b"application/json"
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        if stream:
            await send(start)
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            if hold:
                await hold()
        except asyncio.CancelledError:
            seen.cancelled += 1
            raise
        if not stream:
            await send(start)
        await send({"type": "http.response.body", "body": b"ok"})

    return app


async def ask(
    gateway: Gateway,
    path: str = CHAT,
    method: str = "POST",
    body: list[bytes] | None = None,
    key: str | None = None,
    client: str = "127.0.0.1",
    host: str = "localhost:8000",
    hang: bool = False,
    **headers: str,
) -> Reply:
    """Send one request; with `hang` the connection never sends the end of its body."""
    parts = [BODY] if body is None else body
    sent: list[Any] = []
    pairs = {"host": host, "content-type": "application/json", **headers}
    if key:
        pairs["authorization"] = f"Bearer {key}"
    waiting = [
        {"type": "http.request", "body": part, "more_body": hang or number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": (client, 1),
        "headers": [(k.encode(), v.encode()) for k, v in pairs.items()],
    }
    await gateway(scope, receive, send)
    starts = [m for m in sent if m["type"] == "http.response.start"]
    assert len(starts) == 1
    return Reply(
        starts[0]["status"],
        {k.decode(): v.decode() for k, v in starts[0]["headers"]},
        b"".join(m.get("body", b"") for m in sent),
    )


def gateway_of(seen: Seen, app: Any = None, **changes: Any) -> Gateway:
    policy = replace(POLICY, **changes)
    return Gateway(app or application(seen), policy=policy, make_meter=seen)


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(KEY)
    return str(path)


def test_a_good_request_reaches_the_application_whole() -> None:
    seen = Seen()
    reply = asyncio.run(ask(gateway_of(seen), body=[BODY[:9], BODY[9:]]))
    assert (reply.status, reply.body) == (200, b"ok")
    assert seen.bodies == [BODY]
    assert seen.finished == [(CHAT, 200)]


def test_every_path_but_health_and_the_page_wants_a_key(keys: str) -> None:
    seen = Seen()
    gateway = gateway_of(seen, api_keys_file=keys)
    for path, method in POLICY.routes.items():
        reply = asyncio.run(ask(gateway, path, method))
        assert reply.status == (200 if path in ("/health", "/") else 401), path
        wrong = asyncio.run(ask(gateway, path, method, key="another-key-of-this-test"))
        assert wrong.status == reply.status
        assert asyncio.run(ask(gateway, path, method, key=KEY)).status != 401
    assert reply.headers["content-security-policy"]
    assert asyncio.run(ask(gateway)).headers["www-authenticate"] == "Bearer"
    assert seen.bodies == [BODY]


@pytest.mark.parametrize(
    ("client", "host", "status"),
    [
        ("127.0.0.1", "localhost:8000", 200),
        ("::1", "[::1]:8000", 200),
        ("127.0.0.1", "127.0.0.1", 200),
        ("10.0.0.7", "localhost:8000", 403),
        ("127.0.0.1", "rebound.evil.example:8000", 403),
        ("127.0.0.1", "", 403),
    ],
)
def test_without_keys_this_machine_alone_is_served(client: str, host: str, status: int) -> None:
    assert asyncio.run(ask(gateway_of(Seen()), client=client, host=host)).status == status


def test_the_key_goes_no_further_than_the_gateway(keys: str) -> None:
    seen = Seen()
    headers = {"x-session-id": "s", "x-data-parallel-rank": "1", "x-request-id": "r-1"}
    asyncio.run(ask(gateway_of(seen, api_keys_file=keys), key=KEY, **headers))
    assert seen.headers == {
        "host": "localhost:8000",
        "content-type": "application/json",
        "x-request-id": "r-1",
    }


def test_unusable_keys_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        gateway_of(Seen(), api_keys_file=str(tmp_path / "none"))


def test_a_long_body_is_refused_when_it_passes_the_limit() -> None:
    seen = Seen()
    said = asyncio.run(ask(gateway_of(seen), **{"content-length": "201"}))
    unsaid = asyncio.run(ask(gateway_of(seen), body=[b"x" * 150, b"x" * 51], hang=True))
    assert said.status == unsaid.status == 413
    assert seen.bodies == []


def test_refusals_are_shaped_like_openais() -> None:
    reply = asyncio.run(ask(gateway_of(Seen()), body=[b"{}"]))
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    error = json.loads(reply.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", "model")


def test_more_than_the_bound_at_once_are_told_when_to_come_back() -> None:
    async def overload() -> tuple[list[Reply], Reply]:
        go = asyncio.Event()
        gateway = gateway_of(seen, application(seen, hold=go.wait))
        tasks = [asyncio.create_task(ask(gateway)) for _ in range(20)]
        await asyncio.sleep(0)
        while sum(task.done() for task in tasks) < 18:
            await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*tasks), await ask(gateway)

    seen = Seen()
    replies, later = asyncio.run(overload())
    assert sorted(reply.status for reply in replies) == [200] * 2 + [429] * 18
    assert {r.headers["retry-after"] for r in replies if r.status == 429} == {"7"}
    assert seen.most_in_flight == 2
    assert later.status == 200  # places are given back


def test_an_answer_over_the_time_limit_is_504_and_the_engine_stops() -> None:
    seen = Seen()
    app = application(seen, hold=_forever)
    reply = asyncio.run(ask(gateway_of(seen, app, request_timeout_s=0.02)))
    assert (reply.status, reply.code) == (504, "timeout")
    assert seen.cancelled == 1


def test_a_stream_over_the_time_limit_ends_with_an_error_event() -> None:
    seen = Seen()
    app = application(seen, hold=_forever, stream=True)
    reply = asyncio.run(ask(gateway_of(seen, app, request_timeout_s=0.02)))
    assert reply.status == 200
    first, last = reply.body.decode().strip().split("\n\n")
    assert first == "data: 1"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
    assert seen.finished == [(CHAT, 504)]


def test_a_slow_body_is_408_and_gives_its_place_back() -> None:
    async def two() -> tuple[Reply, Reply]:
        gateway = gateway_of(Seen(), body_timeout_s=0.02, max_in_flight=1)
        return await ask(gateway, body=[b"{"], hang=True), await ask(gateway)

    slow, next_one = asyncio.run(two())
    assert (slow.status, next_one.status) == (408, 200)


def test_a_client_that_goes_away_ends_its_request() -> None:
    async def vanish() -> Reply:
        gateway = gateway_of(seen, application(seen, hold=_forever_once()), max_in_flight=1)
        task = asyncio.create_task(ask(gateway))
        while not seen.bodies:
            await asyncio.sleep(0)
        task.cancel()  # as Ray Serve does when the connection is gone
        with pytest.raises(asyncio.CancelledError):
            await task
        return await ask(gateway)

    seen = Seen()
    assert asyncio.run(vanish()).status == 200
    assert seen.cancelled == 1
    assert seen.finished == [(CHAT, 499), (CHAT, 200)]


def test_unknown_paths_are_counted_together() -> None:
    seen = Seen()
    assert asyncio.run(ask(gateway_of(seen), "/v1/secret-7", "GET")).status == 404
    assert seen.finished == [("other", 404)]


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    asyncio.run(gateway_of(Seen())({"type": "websocket", "path": CHAT}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def _forever() -> None:
    await asyncio.Event().wait()


def _forever_once() -> Callable[[], Any]:
    waits = [_forever]

    async def hold() -> None:
        if waits:
            await waits.pop()()

    return hold
