"""A real S3 server behind the fault proxy, which can be killed and started again."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from cgd_ray.local_servers import s3_server
from cgd_ray.processes import child
from cgd_ray.store import S3Store
from tests.support.fault_proxy import FaultProxy, fault_proxy, healthy

BUCKET = "s3://fire"
_START_LIMIT_S = 60.0


class S3UnderFire:
    """The server's address for those who check, and the proxy for those who work.

    Stores opened with `through_proxy` and processes that inherit the environment meet the faults;
    those opened with `direct` do not.
    """

    def __init__(self, direct_url: str, proxy: FaultProxy, data_dir: Path, log: Path) -> None:
        self.proxy = proxy
        self._direct_url = direct_url
        self._data_dir = data_dir
        self._log = log
        self._stack = ExitStack()

    def through_proxy(self, name: str) -> S3Store:
        """Return the store of a folder of the bucket, behind the proxy."""
        return S3Store(f"{BUCKET}/{name}")

    def direct(self, name: str) -> S3Store:
        """Return the same store, past the proxy."""
        with _endpoint(self._direct_url):
            return S3Store(f"{BUCKET}/{name}")

    def kill_and_restart(self, away_s: float) -> None:
        """`kill -9` the server; start it again, same ports and data, after some seconds."""
        server = self._process()
        command, environment = server.cmdline(), server.environ()
        server.kill()
        server.wait()
        time.sleep(away_s)
        process = self._stack.enter_context(child(command, self._log, environment))
        self._wait_until_it_writes(process)

    def close(self) -> None:
        """Stop what was started again."""
        self._stack.close()

    def _process(self) -> psutil.Process:
        """Return the running server: our own child on our data."""
        for process in psutil.Process().children():
            if f"-dir={self._data_dir}" in process.cmdline():
                return process
        raise AssertionError("the S3 server is not running")

    def _wait_until_it_writes(self, process: subprocess.Popen[bytes]) -> None:
        store, deadline = self.direct("ready"), time.monotonic() + _START_LIMIT_S
        while not store.can_write():
            assert process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)


@contextmanager
def s3_under_fire(folder: Path) -> Iterator[S3UnderFire]:
    """Run server and proxy for the length of the block; the AWS environment points to the proxy."""
    data_dir, log = folder / "data", folder / "s3.log"
    with (
        s3_server(data_dir, log, f"{BUCKET}/x") as url,
        fault_proxy(url) as proxy,
        _endpoint(proxy.url),
    ):
        fire = S3UnderFire(url, proxy, data_dir, log)
        try:
            yield fire
        finally:
            proxy.plan = healthy
            fire.close()


@contextmanager
def _endpoint(url: str) -> Iterator[None]:
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = url
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before
