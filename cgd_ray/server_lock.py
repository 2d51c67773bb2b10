"""A folder has one server at a time, and others find out where it is.

The lock is the kernel's, so it is free however its holder ends. The announcement is a file beside
it that holds the server's keys, for its owner's eyes only.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cgd_ray.errors import UserError

_LOCK, _ANNOUNCEMENT = "server.lock", "server.json"
_PATIENCE_S = 15.0  # a command that only reads is done by then
_POLL_S = 0.1


@contextmanager
def only_server(folder: Path, patience_s: float = _PATIENCE_S) -> Generator[None]:
    """Hold a folder's lock for the length of the block.

    Args:
        folder: that exists.
        patience_s: how long to wait for another holder.

    Raises:
        UserError: another process holds it.
    """
    with (folder / _LOCK).open("a+") as file:
        deadline = time.monotonic() + patience_s
        while not _taken(file.fileno()):
            if time.monotonic() > deadline:
                file.seek(0)
                raise UserError(
                    f"{folder} is in use by process {file.read() or 'unknown'}, another `cgd` "
                    "command: wait for it, stop it, or choose another run.work_dir"
                )
            time.sleep(_POLL_S)
        (folder / _ANNOUNCEMENT).unlink(missing_ok=True)  # of a server that was killed
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def announced(folder: Path, environment: Mapping[str, str]) -> Generator[None]:
    """Let others find the folder's server for the length of the block.

    Args:
        folder: whose lock is held.
        environment: variables that lead to the server.
    """
    path = folder / _ANNOUNCEMENT
    path.touch(mode=0o600)
    path.write_text(json.dumps(dict(environment)), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def announcement(folder: Path, patience_s: float = _PATIENCE_S) -> dict[str, str] | None:
    """Return what leads to a folder's server; None if nobody serves it, or it never got ready.

    A server that is just starting is waited for.
    """
    deadline = time.monotonic() + patience_s
    while _is_held(folder) and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((folder / _ANNOUNCEMENT).read_text(encoding="utf-8"))
        time.sleep(_POLL_S)
    return None


def _is_held(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open() as file:
            return not _taken(file.fileno())
    except FileNotFoundError:
        return False


def _taken(descriptor: int) -> bool:
    """Try to take the lock of an open file; it is given back when the file is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
