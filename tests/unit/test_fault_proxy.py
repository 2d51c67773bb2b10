"""The fault proxy passes requests on unchanged, and breaks those it is told to break."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy


class Recorder(BaseHTTPRequestHandler):
    """A server that remembers what reached it."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.command, self.path, body))
        answer = f"stored {len(body)} bytes for {self.headers['X-Signed']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_DELETE = do_PUT

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bytes]]:
    requests: list[tuple[str, str, bytes]] = []
    monkeypatch.setattr(Recorder, "seen", requests, raising=False)
    return requests


@pytest.fixture
def proxy(seen: list[tuple[str, str, bytes]]) -> Iterator[FaultProxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with fault_proxy(f"http://127.0.0.1:{server.server_address[1]}") as running:
        yield running
    server.shutdown()
    server.server_close()


def put(proxy: FaultProxy, path: str = "/bucket/key?x=1", method: str = "PUT") -> httpx.Response:
    headers = {"X-Signed": "me", "Expect": "100-continue"}
    return httpx.request(method, proxy.url + path, content=b"data", headers=headers, timeout=20)


def test_requests_pass_unchanged_and_are_counted(proxy, seen):
    assert put(proxy).text == "stored 4 bytes for me"
    assert put(proxy, "/bucket/other").status_code == 200
    assert seen == [("PUT", "/bucket/key?x=1", b"data"), ("PUT", "/bucket/other", b"data")]
    assert [(o.number, o.method, o.target) for o in proxy.operations] == [
        (1, "PUT", "/bucket/key?x=1"),
        (2, "PUT", "/bucket/other"),
    ]


@pytest.mark.parametrize(
    ("kind", "arrived"), [("cut_before", 0), ("cut_after", 1), ("truncate", 1), ("stall", 0)]
)
def test_a_cut_falls_before_or_after_the_server(proxy, seen, kind, arrived):
    called = []
    proxy.plan = lambda operation: Fault(kind, 0.05, lambda: called.append(len(seen)))
    with pytest.raises(httpx.TransportError):
        put(proxy)
    assert len(seen) == arrived
    assert called == [arrived]


def test_a_fault_may_choose_its_requests(proxy, seen):
    proxy.plan = lambda operation: Fault("cut_before") if operation.method == "DELETE" else None
    with pytest.raises(httpx.TransportError):
        put(proxy, method="DELETE")
    assert put(proxy).status_code == 200
    assert [method for method, *_ in seen] == ["PUT"]


def test_an_overloaded_server_says_so(proxy, seen):
    proxy.plan = lambda operation: Fault("unavailable") if operation.number == 1 else None
    assert put(proxy).status_code == 503
    assert put(proxy).status_code == 200
    assert len(seen) == 1


def test_a_delay_is_waited_for(proxy, seen):
    proxy.plan = lambda operation: Fault("delay", 0.2)
    began = time.monotonic()
    assert put(proxy).status_code == 200
    assert time.monotonic() - began >= 0.2


def test_a_server_that_is_gone_is_a_reset(proxy):
    proxy.upstream = "http://127.0.0.1:9"
    with pytest.raises(httpx.TransportError):
        put(proxy)


def test_chunked_bodies_pass(proxy, seen, monkeypatch):
    # The recorder wants a length: look at what the proxy would send instead.
    sent: list[bytes] = []

    async def ask(request: bytes) -> bytes:
        sent.append(request)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    monkeypatch.setattr(proxy, "_ask_server", ask)
    assert httpx.put(proxy.url, content=iter([b"abc", b"defg"])).status_code == 200
    assert sent[0].endswith(b"\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
