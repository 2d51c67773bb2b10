"""A proxy in front of an S3 server that counts requests and breaks chosen ones.

It understands just enough HTTP/1.1 to take one request a connection whole, and passes its bytes on
unchanged, so that signatures stay valid. Clients keep one address while the server behind it is
killed and comes back on another (`proxy.upstream`).
"""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Literal
from urllib.parse import urlparse

from tests.support.threads import in_thread

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
_UNAVAILABLE = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_SLOW_DOWN), _SLOW_DOWN)
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One request as it reached the proxy."""

    number: int  # 1, 2, ... since the count was last reset
    method: str
    target: str  # path and query


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request.

    cut_before: reset instead of passing it on. cut_after: the server does it, the answer is lost.
    truncate: half of the answer arrives. unavailable: 503, not passed on. stall: silence for
    `seconds`, then a reset. delay: passed on after `seconds`.
    """

    kind: Literal["cut_before", "cut_after", "truncate", "unavailable", "stall", "delay"]
    seconds: float = 0.0
    then: Callable[[], None] | None = None  # called just before a client sees a cut


Plan = Callable[[Operation], Fault | None]


def healthy(operation: Operation) -> None:
    """Let every request pass."""


class FaultProxy:
    """The proxy's state; `plan`, `upstream` and `operations` may be set at any time."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.plan: Plan = healthy
        self.operations: list[Operation] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients send their requests."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, started: threading.Event) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, target, request = await _read_request(reader, writer)
            operation = Operation(len(self.operations) + 1, method, target)
            self.operations.append(operation)
            await self._answer(self.plan(operation), request, writer)
        except (OSError, asyncio.IncompleteReadError):
            _reset(writer)  # the client or the server is gone
        finally:
            writer.close()

    async def _answer(
        self, fault: Fault | None, request: bytes, writer: asyncio.StreamWriter
    ) -> None:
        kind = fault.kind if fault else None
        if fault and kind in ("stall", "delay"):
            await asyncio.sleep(fault.seconds)
        if kind in ("cut_before", "stall"):
            answer = b""
        elif kind == "unavailable":
            answer = _UNAVAILABLE
        else:
            answer = await self._ask_server(request)
        if fault and fault.then:
            fault.then()
        if kind in ("cut_before", "cut_after", "stall"):
            _reset(writer)
            return
        writer.write(answer[: len(answer) // 2] if kind == "truncate" else answer)
        await writer.drain()

    async def _ask_server(self, request: bytes) -> bytes:
        address = urlparse(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[str, str, bytes]:
    """Return method, target and the bytes of a request that ends its connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    headers = {n.strip().lower(): v.strip() for n, _, v in (x.partition(b":") for x in lines)}
    if headers.get(b"expect") == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get(b"transfer-encoding") == b"chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get(b"content-length", 0)))
    ours = (b"expect", b"connection")
    kept = [x for x in lines if x.partition(b":")[0].strip().lower() not in ours]
    method, target, _ = first.decode("latin-1").split(" ")
    return method, target, b"\r\n".join([first, *kept, b"Connection: close", b"", body])


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        number = int(size.split(b";")[0], 16)
        body += size + await reader.readexactly(number + 2 if number else 0)
        if number == 0:
            while True:  # trailers, up to an empty line
                line = await reader.readuntil(b"\r\n")
                body += line
                if line == b"\r\n":
                    return body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Make the coming close a TCP reset, as of a server that died."""
    with contextlib.suppress(OSError):
        socket = writer.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run the proxy in a thread for the length of the block."""
    proxy = FaultProxy(upstream)
    with in_thread(proxy.serve):
        yield proxy
