"""A chat endpoint whose answers a test decides: a real HTTP server in a thread."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | int  # the text of an answer, or the status of a refusal


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # connections that come at once


@contextmanager
def chat_server(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the root of an API and the list of the requests that it gets, each as it was sent.

    Args:
        answer: from the body of a request to its answer. An answer has as many tokens as words.
    """
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({**body, "authorization": self.headers.get("Authorization")})
            said = answer(body)
            status = said if isinstance(said, int) else 200
            message = {"role": "assistant", "content": str(said)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": len(str(said).split())}
            reply = {"choices": [choice], "usage": usage, "model": body["model"]}
            data = json.dumps(reply if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
