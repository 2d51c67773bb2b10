"""Ray's Jobs API as a script: what jobs print and when they end is decided by the test."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "/api/jobs/"


@dataclass
class ScriptedJobs:
    """The state of the server, and what reached it."""

    url: str = ""
    token: str | None = None
    num_nodes: int = 1
    ray_version: str | None = "2.60.0"  # None: it is no head of Ray
    printed: str = ""  # what the log of a new job holds
    steps: list[str] = field(default_factory=list)  # text that each look at a log adds
    no_logs: bool = False  # the node that has them is gone
    ends: dict[str, Any] = field(default_factory=lambda: {"status": "SUCCEEDED"})
    stops: bool = True  # whether a job ends when it is asked to
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)  # with the token

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return status and value of one request."""
        if path == "/api/version":
            return 200, {"ray_version": self.ray_version} if self.ray_version else {}
        if path.startswith("/nodes"):
            alive = [{"raylet": {"state": "ALIVE"}}] * self.num_nodes
            return 200, {"data": {"summary": [*alive, {"raylet": {"state": "DEAD"}}]}}
        if path.startswith("/api/packages/gcs/"):
            return self._package(method, path.rpartition("/")[2], body)
        if path == PREFIX:
            return self._submit(json.loads(body)) if method == "POST" else self._list()
        name, _, action = path.removeprefix(PREFIX).partition("/")
        if name not in self.jobs:
            return 404, f"Job {name} does not exist"
        return {"": self._job, "logs": self._log, "stop": self._stop}[action](name)

    def start(self, name: str, **told: Any) -> None:
        """Add a job that runs."""
        self.jobs[name] = {
            "submission_id": name,
            "status": "RUNNING",
            "entrypoint": "python -m cgd_ray.cli generate run.toml",
            "start_time": 1_700_000_000_000,
            **told,
        }
        self.logs[name] = self.printed

    def _package(self, method: str, name: str, body: bytes) -> tuple[int, Any]:
        if method == "PUT":
            self.packages[name] = body
        return (200, {}) if name in self.packages else (404, "no such package")

    def _submit(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["submission_id"] in self.jobs:
            return 500, "ValueError: this job already exists"
        self.start(body["submission_id"], **{k: v for k, v in body.items() if "_id" not in k})
        return 200, {"submission_id": body["submission_id"]}

    def _list(self) -> tuple[int, Any]:
        return 200, [*self.jobs.values(), {"job_id": "01", "status": "RUNNING"}]

    def _job(self, name: str) -> tuple[int, Any]:
        if not self.steps and self.jobs[name]["status"] == "RUNNING":
            self.jobs[name].update(end_time=1_700_000_090_000, **self.ends)
        return 200, self.jobs[name]

    def _log(self, name: str) -> tuple[int, Any]:
        if self.no_logs:
            return 500, "Traceback:\nClientConnectorError: no such node"
        if self.steps:
            self.logs[name] += self.steps.pop(0)
        return 200, {"logs": self.logs[name]}

    def _stop(self, name: str) -> tuple[int, Any]:
        if self.stops:
            self.steps, self.ends = ["stopping after the calls under way\n"], {"status": "STOPPED"}
        return 200, {"stopped": True}


@contextmanager
def scripted_jobs(**state: Any) -> Iterator[ScriptedJobs]:
    """Serve the API for the length of the block."""
    jobs, lock = ScriptedJobs(**state), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = self.headers.get("Authorization")
            with lock:
                jobs.seen.append((self.command, self.path, given))
                status, value = 401, "Unauthorized: Missing authentication token"
                if jobs.token is None or given == f"Bearer {jobs.token}":
                    status, value = jobs.answer(self.command, self.path, body)
                elif given:
                    status, value = 403, "Forbidden: Invalid authentication token"
            data = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep the terminal clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    jobs.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield jobs
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)
