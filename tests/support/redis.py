"""A Redis that outlives the head of a Ray cluster."""

import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.processes import child, free_port, wait_until


@dataclass(frozen=True)
class Redis:
    """Where it answers, and to whom."""

    address: str  # host:port
    password: str


def redis_binary() -> str | None:
    """Return the path of `redis-server`, if it is installed."""
    return shutil.which("redis-server")


@contextmanager
def redis_server(host: str, folder: Path) -> Iterator[Redis]:
    """Run a Redis as our KubeRay file does, for the length of the block.

    Args:
        host: address of this machine to listen on.
        folder: for its data, its settings and its log.
    """
    binary = redis_binary()
    assert binary is not None
    folder.mkdir()
    port, password = free_port(host), secrets.token_hex(16)
    settings, log = folder / "redis.conf", folder / "redis.log"
    settings.touch(mode=0o600)
    settings.write_text(f"requirepass {password}\nbind {host}\nport {port}\ndir {folder}\n")
    with child([binary, str(settings), "--appendonly", "yes"], log) as process:
        wait_until(lambda: _answers(host, port, password), process, "Redis", log, 30)
        yield Redis(f"{host}:{port}", password)


def _answers(host: str, port: int, password: str) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())
            return b"PONG" in connection.makefile("rb").read()
    except OSError:
        return False
