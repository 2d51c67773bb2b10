"""The process that runs a model's code: gives up what it may do, then runs it and its tests.

Run as a script with `python -I -S`; imports nothing of the package. Reads a JSON object with
`program`, `test`, `entry_point`, `token`, `cpu_s` and `memory_bytes` from standard input and
prints `token` if every test passed, else what went wrong. Linux.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from typing import Any

_NOBODY = 65534
_NEW_USER, _NEW_IPC, _NEW_PID, _NEW_NET = 0x10000000, 0x08000000, 0x20000000, 0x40000000
_SET_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38  # of prctl
_MAX_FILE_BYTES = 1 << 20
_MAX_OPEN_FILES = 64
# Loaded with our rights: a Python below root's home cannot be read by nobody.
_PRELOADED = (
    *("bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools"),
    *("hashlib", "heapq", "itertools", "math", "operator", "queue", "random", "re"),
    *("statistics", "string", "typing", "unicodedata"),
)


def main() -> None:
    """Run the job in a child with fewer rights, and end as it ends."""
    job = json.load(sys.stdin)
    for name in _PRELOADED:
        importlib.import_module(name)
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    isolate(libc)
    # A process namespace holds only what is forked after it was made; its end ends all of it.
    child = os.fork()
    if child == 0:
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        restrict(libc, job["cpu_s"], job["memory_bytes"])
        sys.excepthook = lambda kind, error, _: tell(answer, f"{kind.__name__}: {error}"[:300])
        run(job)
        tell(answer, job["token"])
        os._exit(0)  # not the exit handlers of what was run
    os.close(answer)
    os.waitpid(child, 0)


def isolate(libc: ctypes.CDLL) -> None:
    """Leave the network and other processes behind, where the kernel lets us."""
    spaces = _NEW_NET | _NEW_PID | _NEW_IPC
    if libc.unshare(spaces) != 0:
        libc.unshare(spaces | _NEW_USER)


def restrict(libc: ctypes.CDLL, cpu_s: int, memory_bytes: int) -> None:
    """Become nobody if we are root, and set limits that cannot be raised again."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def run(job: dict[str, Any]) -> None:
    """Run the program, then its tests. Raises whatever they raise."""
    space: dict[str, Any] = {"__name__": "answer"}
    exec(compile(job["program"], "<answer>", "exec"), space)
    exec(compile(job["test"], "<test>", "exec"), space)
    space["check"](space[job["entry_point"]])


def tell(answer: int, text: str) -> None:
    """Write to the process that started us."""
    os.write(answer, text.encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
