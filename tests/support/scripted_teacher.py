"""A teacher that fails on demand: a real HTTP server on raw sockets, so that it can send anything.

Each request is answered from the script of the problem that it asks about; when a script is spent,
and for problems without one, the answer is good.
"""

import asyncio
import json
import re
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Literal

from tests.support.threads import in_thread

KEY = "a-key-of-this-test"


@dataclass(frozen=True)
class Reply:
    """One scripted answer."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    fault: Literal["reset", "hang", "truncate", "close"] | None = None


@dataclass(frozen=True)
class Request:
    """One accepted request."""

    at_s: float
    problem: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes


def chat(text: str | None = "a fine answer", **choice: object) -> dict[str, Any]:
    """Return the body of a chat completion; `choice` replaces parts of its only choice."""
    message = {"role": "assistant", "content": text, "refusal": None}
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 7},
    }
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": usage,
    }


def answer(value: object, status: int = 200, **headers: str) -> Reply:
    """Return a JSON reply."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(json.dumps(value).encode(), status, {"Content-Type": "application/json", **named})


class ScriptedTeacher:
    """The server's address, and everything that it was asked."""

    def __init__(self, scripts: Mapping[str, Sequence[Reply]], good: Reply) -> None:
        self._scripts = {problem: list(replies) for problem, replies in scripts.items()}
        self._good = good
        self.requests: list[Request] = []
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, problem: str) -> list[Request]:
        return [request for request in self.requests if request.problem == problem]

    async def serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            reply = self._reply(await self._request(reader))
            if reply.fault == "hang":
                await asyncio.sleep(3600)
            if reply.fault == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            elif reply.fault != "close":
                await self._send(writer, reply)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(data) if data else None
        found = re.search(r"<problem>\n(.*?)\n</problem>", json.dumps(body).replace("\\n", "\n"))
        problem = found[1] if found else ""
        request = Request(time.monotonic(), problem, method, path, headers, body, data)
        self.requests.append(request)
        return request

    def _reply(self, request: Request) -> Reply:
        script = self._scripts.get(request.problem)
        return script.pop(0) if script else self._good

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        headers = {**reply.headers, "Content-Length": str(len(reply.body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{n}: {v}" for n, v in headers.items())]
        body = reply.body[: len(reply.body) // 2] if reply.fault == "truncate" else reply.body
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()


@contextmanager
def scripted_teacher(
    scripts: Mapping[str, Sequence[Reply]], good: Reply | None = None
) -> Iterator[ScriptedTeacher]:
    """Run the server in a thread for the length of the block.

    Args:
        scripts: replies to the calls about each problem, in order.
        good: what it answers otherwise; None: an OpenAI chat completion.
    """
    teacher = ScriptedTeacher(scripts, good or answer(chat()))
    with in_thread(teacher.serve):
        yield teacher
