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
        request = urllib.request.Request(self.address + path, body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read().decode()


@contextmanager
def job_cluster(environment: dict[str, str]) -> Iterator[JobCluster]:
    """Hold a head, with variables of its node, for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="jobs-", ignore_cleanup_errors=True) as folder:
        ports = {"port": free_port(), "dashboard-port": free_port()}
        options = [
            *(f"--{name}={port}" for name, port in ports.items()),
            "--num-cpus=8",
            "--object-store-memory=200000000",
            "--include-dashboard=true",
            f"--temp-dir={folder}/ray",
        ]
        settings = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", *options]
        try:
            subprocess.run(
                command,
                env={**os.environ, **settings, **environment},
                check=True,
                capture_output=True,
                timeout=120,
            )
            yield JobCluster(f"http://127.0.0.1:{ports['dashboard-port']}", Path(folder))
        finally:
            for process_id in processes_of(folder):
                os.kill(process_id, signal.SIGKILL)
