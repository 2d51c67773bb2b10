"""A scripted teacher that is never the bottleneck: one process, canned answers, a fixed latency.

    python -m benchmarks.fast_teacher LATENCY_S FAULT_EVERY     # prints its port; 0: no faults

An answer repeats the problem that it was asked about, so that a client can be checked for lost and
mixed-up rows. Every FAULT_EVERY-th request gets the next of five faults.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path

_MARK = b"@@"  # stands where the problem goes
_ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 0,
    "model": "fast",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            # As long as a short critique.
            "message": {"role": "assistant", "content": "@@ " + "The second step is wrong. " * 40},
        }
    ],
    "usage": {"prompt_tokens": 600, "completion_tokens": 250, "total_tokens": 850},
}


def _http(status: str, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


_BODY = json.dumps(_ANSWER).encode()
# (bytes, whether the connection ends after them)
_FAULTS = (
    (_http("500 Oops", b'{"error": {"message": "oops"}}'), False),
    (_http("429 Slow", b"{}").replace(b"\r\n", b"\r\nRetry-After: 0\r\n", 1), False),
    (b"", True),
    (_http("200 OK", _BODY[:100], length=len(_BODY)), True),
    (_http("200 OK", b"<html>log in</html>"), False),
)


class _Connection(asyncio.Protocol):
    numbers = count(1)
    faults = cycle(_FAULTS)
    latency_s = 0.0
    fault_every = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(size or 0):
            return
        self._data = b""
        loop = asyncio.get_running_loop()
        if self.fault_every and next(self.numbers) % self.fault_every == 0:
            loop.call_later(self.latency_s, self._send, *next(self.faults))
            return
        problem = body.partition(b"<problem>\\n")[2].partition(b"\\n")[0]
        reply = _http("200 OK", _BODY.replace(_MARK, problem))
        loop.call_later(self.latency_s, self._send, reply, False)

    def _send(self, reply: bytes, ends: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)
            if ends:
                self._transport.close()


@contextmanager
def fast_teacher(latency_s: float, fault_every: int = 0) -> Iterator[str]:
    """Run the server in a process of its own; yield the root of its API."""
    command = [sys.executable, "-m", "benchmarks.fast_teacher", str(latency_s), str(fault_every)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def _serve(latency_s: float, fault_every: int) -> None:
    _Connection.latency_s, _Connection.fault_every = latency_s, fault_every
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2])))
