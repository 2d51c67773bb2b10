"""Three machines, and outside of them what they all use: an S3 server and the tutor."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cgd_ray.local_servers import s3_server
from cgd_ray.processes import child, wait_until
from tests.support.namespaces import Network, network, why_not
from tests.support.ray_machines import NAMES

BUCKET = "s3://nodes"


@dataclass(frozen=True)
class Surroundings:
    """Machines that are off, and the teacher's address."""

    network: Network
    teacher: str


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    """Nothing of it dies with a machine; the AWS environment points to the S3 server."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with (
        network(NAMES) as net,
        s3_server(tmp_path / "s3", tmp_path / "s3.log", f"{BUCKET}/x", host=net.address),
        _tutor(net.address, tmp_path) as teacher,
    ):
        yield Surroundings(net, teacher)


@contextmanager
def _tutor(host: str, folder: Path) -> Iterator[str]:
    port, log = folder / "port", folder / "tutor.log"
    command = [sys.executable, "-m", "cgd_ray.tutor", "--host", host, "--port-file", str(port)]
    command += ["--latency-ms", "300"]
    with child(command, log) as process:
        wait_until(port.exists, process, "the tutor", log, 60)
        yield f"http://{host}:{port.read_text().strip()}/v1"
