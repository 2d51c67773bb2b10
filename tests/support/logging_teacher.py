"""A teacher that answers well and writes down every call that it accepts before it answers.

`python -m tests.support.logging_teacher PORT_FILE LOG LATENCY_MS`. A line of the log is a JSON
list: the problem that was asked about, and the turn of its chat (1 critique, 2 refinement). It is
one write to a file opened for appending, so it is there whatever is killed afterwards.
"""

import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.scripted_teacher import chat

TEXT = "a fine answer"


class LoggingTeacher(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    log_file: int
    latency_s: float

    def do_POST(self) -> None:
        """Log the call, take time, answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = body["messages"]
        found = re.search(r"<problem>\n(.*?)\n</problem>", messages[1]["content"])
        turn = sum(message["role"] == "user" for message in messages)
        line = json.dumps([found[1] if found else "", turn])
        os.write(self.log_file, f"{line}\n".encode())
        time.sleep(self.latency_s)
        self._answer(chat(TEXT))

    def do_GET(self) -> None:
        """List the models: what is asked before a run starts."""
        self._answer({"object": "list", "data": [{"id": "scripted-1", "object": "model"}]})

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""

    def _answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no error."""


def calls(log: Path) -> list[tuple[str, int]]:
    """Return the accepted calls, as (problem, turn)."""
    if not log.exists():
        return []
    return [tuple(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def main(port_file: str, log: str, latency_ms: str) -> None:
    """Serve until ended."""
    LoggingTeacher.log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    LoggingTeacher.latency_s = float(latency_ms) / 1000
    server = _Server(("127.0.0.1", 0), LoggingTeacher)
    temporary = Path(f"{port_file}.new")
    temporary.write_text(str(server.server_address[1]), encoding="ascii")
    temporary.rename(port_file)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
