"""Servers for the tests on a local Ray: a real S3 server and the tutor, each its own process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgd_ray.local_servers import s3_server
from cgd_ray.processes import child, wait_until


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server with the bucket `tests`; the AWS environment points to it."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder / "data", folder / "s3.log", "s3://tests/x") as url:
        yield url


@pytest.fixture
def slow_tutor(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A tutor that takes 0.2 s to answer; its address, and its log with a line for each request."""
    port, log = tmp_path / "port", tmp_path / "requests.log"
    command = [sys.executable, "-m", "cgd_ray.tutor", "--port-file", str(port), "--log", str(log)]
    with child([*command, "--latency-ms", "200"], tmp_path / "tutor.log") as process:
        wait_until(port.exists, process, "the tutor", tmp_path / "tutor.log", 60)
        yield f"http://127.0.0.1:{port.read_text().strip()}/v1", log
