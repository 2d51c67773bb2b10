"""Children that never outlive us, whatever ends us."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cgd_ray.errors import UserError
from cgd_ray.processes import (
    child,
    free_port,
    require_free_port,
    sigterm_as_ctrl_c,
    stop,
    wait_until,
)

PARENT = """
import sys, time
from pathlib import Path
from cgd_ray.processes import child
with child([sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1])) as process:
    print(process.pid, flush=True)
    time.sleep(600)
"""


def eventually(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a corpse that nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_dies_with_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(how)
        parent.wait(timeout=20)
    assert eventually(lambda: not is_running(pid)), f"process {pid} outlived its parent"


def test_a_child_is_stopped_at_the_end_of_the_block(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    code = "import os, sys; print(os.environ['X'], file=sys.stderr, flush=True); input()"
    command = [sys.executable, "-c", f"{code}"]
    with child(command, log, {"X": "from the environment"}) as process:
        process.wait(timeout=20)  # standard input is empty: it ends by itself
    assert "from the environment" in log.read_text()
    with (
        pytest.raises(RuntimeError),
        child([sys.executable, "-c", "import time; time.sleep(600)"], log) as process,
    ):
        raise RuntimeError
    assert process.poll() == -signal.SIGTERM
    assert "from the environment" in log.read_text(), "a log is added to, not replaced"


def test_a_child_that_ignores_us_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    with child([sys.executable, "-c", code], log) as process:
        assert eventually(lambda: "ready" in log.read_text())
        stop(process, patience_s=0.2)
        assert process.poll() == -signal.SIGKILL
        stop(process)


def test_waiting_names_what_died_or_was_late(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        child([sys.executable, "-c", "raise SystemExit(3)"], log) as process,
        pytest.raises(UserError, match=f"the server ended with status 3: see {log}"),
    ):
        wait_until(lambda: False, process, "the server", log, limit_s=20)
    with (
        child([sys.executable, "-c", "import time; time.sleep(600)"], log) as process,
        pytest.raises(UserError, match=f"the server was not ready after 0.1 s: see {log}"),
    ):
        wait_until(lambda: False, process, "the server", log, limit_s=0.1)
    with child([sys.executable, "-c", "import time; time.sleep(600)"], log) as process:
        wait_until(lambda: True, process, "the server", log, limit_s=0)


def test_ports() -> None:
    port = free_port()
    require_free_port("127.0.0.1", port, "serve.port")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(UserError, match=rf"serve\.port={port} on {host} is in use"):
                require_free_port(host, port, "serve.port")
    assert is_running(os.getpid())


STOPPED = """
import signal, sys, time
from cgd_ray.processes import route_sigterm, sigterm_as_ctrl_c
if "handled" in sys.argv:
    signal.signal(signal.SIGINT, lambda *_: sys.exit("asked politely"))
try:
    with sigterm_as_ctrl_c():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as a library would
        route_sigterm()
        print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


@pytest.mark.parametrize("how", ["as ever", "blocked", "ignored", "handled"])
def test_sigterm_does_what_ctrl_c_does(how: str) -> None:
    """Ray starts jobs with SIGINT blocked, and a script's background ignores it."""

    def prepare() -> None:
        if how == "blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if how == "ignored":
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "False\n", "SIGINT gets through"
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert said == ("asked politely\n" if how == "handled" else "interrupted\n")
    assert process.returncode == 1


def test_signals_are_as_before_after_the_block() -> None:
    def before(*_: object) -> None: ...

    earlier = signal.signal(signal.SIGTERM, before)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with sigterm_as_ctrl_c():
            assert signal.getsignal(signal.SIGTERM) is not before
            assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.getsignal(signal.SIGTERM) is before
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, earlier)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
