"""Child processes that never outlive us, and free ports."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cgd_ray.errors import UserError

_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 10.0


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen there."""
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free_port(host: str, port: int, setting: str) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        UserError: it is taken; the message names the setting.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1" if host == "0.0.0.0" else host, port)) == 0:
            raise UserError(f"{setting}={port} on {host} is in use: choose another {setting}")


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, `kill -9` included."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def child(
    command: Sequence[str],
    log: Path,
    env: dict[str, str] | None = None,
    patience_s: float = _PATIENCE_S,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the length of the block; its output goes to a file.

    It is stopped by its own process id at the end, and dies with us if we are killed.

    Args:
        command: what to run.
        log: is appended to.
        env: added to our own environment.
        patience_s: what it is given to end by itself when it is stopped.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            preexec_fn=_die_with_parent,
        )
    try:
        yield process
    finally:
        stop(process, patience_s)


def stop(process: subprocess.Popen[bytes], patience_s: float = _PATIENCE_S) -> None:
    """End a process that we started: politely, then not."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    if process.poll() is None:
        process.kill()
        process.wait()


def wait_until(
    ready: Callable[[], bool],
    process: subprocess.Popen[bytes],
    what: str,
    log: Path,
    limit_s: float,
) -> None:
    """Wait for a condition of a server that we started.

    Raises:
        UserError: it died or took longer than `limit_s`; the message names its log.
    """
    deadline = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None:
            raise UserError(f"{what} ended with status {process.returncode}: see {log}")
        if time.monotonic() > deadline:
            raise UserError(f"{what} was not ready after {limit_s:g} s: see {log}")
        time.sleep(0.05)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does at the time, for the length of the block.

    Who stops a job of a cluster sends SIGTERM, and Ray starts jobs with Ctrl-C's signal blocked.
    Outside the main thread, which alone receives signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    before = signal.getsignal(signal.SIGTERM)
    route_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def route_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, from now on: libraries take SIGTERM for themselves."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _as_ctrl_c)


def _as_ctrl_c(_: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # a script's background, where Ctrl-C is ignored
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)
