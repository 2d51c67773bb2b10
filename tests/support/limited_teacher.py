"""A teacher over real HTTP with limits of its own: requests and tokens a "minute", or a queue."""

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS = 30, 20


@dataclass
class ServerLimits:
    """What the server allows; `minute_s` is the length of its window."""

    window: Literal["fixed", "sliding"] = "sliding"
    minute_s: float = 60.0
    max_requests: int | None = None
    max_tokens: int | None = None
    num_workers: int | None = None  # more calls wait in a queue without end
    latency_s: float = 0.05
    retry_after: str | None = None  # None: what is left of the window
    closed_s: float = 0.0  # from the start on, everything is refused


@dataclass
class LimitedTeacher:
    """The running server: its address, and what it was asked, in seconds of its loop's clock."""

    limits: ServerLimits
    port: int = 0
    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    _window: deque[float] = field(default_factory=deque)
    _started_s: float = 0.0
    _workers: asyncio.Semaphore | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve in this event loop."""
        if self.limits.num_workers:
            self._workers = asyncio.Semaphore(self.limits.num_workers)
        self._started_s = asyncio.get_running_loop().time()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next(
                    int(line.split(":")[1])
                    for line in head.split("\r\n")
                    if "content-length" in line
                )
                await reader.readexactly(length)
                writer.write(await self._answer())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self) -> bytes:
        now_s = asyncio.get_running_loop().time()
        wait_s = self._refusal_s(now_s)
        if wait_s is not None:
            self.refused_s.append(now_s)
            told = self.limits.retry_after or f"{wait_s:.3f}"
            return _response(429, {"error": {"message": "too many"}}, f"Retry-After: {told}\r\n")
        self.accepted_s.append(now_s)
        if self._workers is None:
            await asyncio.sleep(self.limits.latency_s)
        else:
            async with self._workers:
                await asyncio.sleep(self.limits.latency_s)
        return _response(200, _chat())

    def _refusal_s(self, now_s: float) -> float | None:
        """Return how long the server refuses from now on; None if it takes the request."""
        s = self.limits
        if now_s < self._started_s + s.closed_s:
            return self._started_s + s.closed_s - now_s
        window = self._window
        if s.window == "fixed":
            start_s = now_s - (now_s - self._started_s) % s.minute_s
        else:
            start_s = now_s - s.minute_s
        while window and window[0] <= start_s:
            window.popleft()
        used_tokens = (len(window) + 1) * (NUM_INPUT_TOKENS + NUM_OUTPUT_TOKENS)
        full = s.max_requests is not None and len(window) >= s.max_requests
        if full or (s.max_tokens is not None and used_tokens > s.max_tokens):
            return (start_s if s.window == "fixed" else window[0]) + s.minute_s - now_s
        window.append(now_s)
        return None


def _response(status: int, value: object, header: str = "") -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{header}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _chat() -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "limited-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "fine"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": NUM_INPUT_TOKENS, "completion_tokens": NUM_OUTPUT_TOKENS},
    }


def busiest_window(times_s: list[float], window_s: float) -> int:
    """Return the most requests in any window of this length."""
    first, most = 0, 0
    for last, at_s in enumerate(times_s):
        first = next(i for i in itertools.count(first) if times_s[i] > at_s - window_s)
        most = max(most, last - first + 1)
    return most
