"""A Ray head that takes jobs, as a cluster's does, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.processes import free_port
from tests.support.gpu_cluster import processes_of

_DONE = {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass(frozen=True)
class JobCluster:
    """Its job API and the folder with its logs."""

    address: str
    folder: Path
    gcs_address: str
    client_port: int  # of Ray Client
    token: str | None = None

    def submit(self, *command: object) -> str:
        """Run a command as a job; return its status when it has ended."""
        body = json.dumps({"entrypoint": " ".join(map(str, command))}).encode()
        job = json.loads(self.ask("/api/jobs/", body))["submission_id"]
        while True:
            status = json.loads(self.ask(f"/api/jobs/{job}"))["status"]
            if status in _DONE:
                return status
            time.sleep(0.5)

    def ask(self, path: str, body: bytes | None = None) -> str:
        """Return what the dashboard's API answers."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.address + path, body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read().decode()


@contextmanager
def job_cluster(environment: dict[str, str]) -> Iterator[JobCluster]:
    """Hold a head, with variables of its node, for the length of the block.

    Token authentication is off unless the variables turn it on, with `RAY_AUTH_TOKEN`.
    """
    with tempfile.TemporaryDirectory(prefix="jobs-", ignore_cleanup_errors=True) as folder:
        names = (
            "port",
            "dashboard-port",
            "dashboard-agent-listen-port",
            "ray-client-server-port",
        )
        ports = {name: free_port() for name in names}
        options = [
            *(f"--{name}={port}" for name, port in ports.items()),
            "--num-cpus=8",
            "--object-store-memory=200000000",
            "--include-dashboard=true",
            f"--temp-dir={folder}/ray",
        ]
        programs = Path(sys.executable).parent
        settings = {
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{programs}:{os.environ['PATH']}",  # jobs start `python`
        }
        command = [str(programs / "ray"), "start", "--head", *options]
        try:
            subprocess.run(
                command,
                env={**os.environ, **settings, **environment},
                check=True,
                capture_output=True,
                timeout=120,
            )
            yield JobCluster(
                f"http://127.0.0.1:{ports['dashboard-port']}",
                Path(folder),
                f"127.0.0.1:{ports['port']}",
                ports["ray-client-server-port"],
                environment.get("RAY_AUTH_TOKEN"),
            )
        finally:
            for process_id in processes_of(folder):
                os.kill(process_id, signal.SIGKILL)
