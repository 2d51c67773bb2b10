"""A Hugging Face hub with one data set, `me/sums`: the part of its HTTP API that downloads use."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

COMMIT = "a" * 40
FILES = {
    "data/train-00000-of-00001.jsonl": b'{"prompt": "1+1", "answer": "2"}\n'
    b'{"prompt": "2+2", "answer": "4"}\n',
    "data/test-00000-of-00001.jsonl": b'{"prompt": "3+3", "answer": "6"}\n',
}
_FOLDER = {"type": "directory", "path": "data", "size": 0, "oid": "0" * 40}


def _file(path: str) -> dict[str, object]:
    oid = hashlib.sha1(FILES[path], usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path, "size": len(FILES[path]), "oid": oid}


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = urlparse(self.path).path
        if re.fullmatch(r"/api/datasets/me/sums(/revision/.*)?", path):
            names = [{"rfilename": name} for name in FILES]
            answer = {"id": "me/sums", "sha": COMMIT, "private": False, "siblings": names}
            return self._answer({**answer, "tags": [], "downloads": 0, "likes": 0})
        if found := re.fullmatch(rf"/api/datasets/me/sums/tree/{COMMIT}/?(.*)", path):
            below = [_file(name) for name in FILES if name.startswith(found[1])]
            return self._answer(below if found[1] else [_FOLDER, *below])
        found = re.fullmatch(rf"/datasets/me/sums/resolve/{COMMIT}/(.*)", path)
        if found and found[1] in FILES:
            etag = f'"{_file(found[1])["oid"]}"'
            return self._send(200, FILES[found[1]], {"ETag": etag, "X-Repo-Commit": COMMIT})
        return self._send(
            404, b"{}", {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"}
        )

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._answer([_FOLDER if name == "data" else _file(name) for name in asked])

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def scripted_hub() -> Iterator[str]:
    """Serve the hub for the length of the block; give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
