"""Training workers as plain processes with a gloo group: the loop without Ray.

They are forked from a process that has imported everything, so that starting one costs
milliseconds. Each may be told when to die: before or after the n-th call of a chosen function.
"""

import atexit
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cgd_ray.processes import free_port
from cgd_ray.training.environment import worker_environment
from cgd_ray.training.task import TrainTask

LIMIT_S = 180
Place = Literal["batch", "step", "upload", "commit", "export"]
# Where each place is: module, owner in it or "", function.
_PLACES: dict[str, tuple[str, str, str]] = {
    "batch": ("cgd_ray.training.loop", "", "target_loss_sum"),
    "step": ("cgd_ray.training.loop", "", "rows_of_step"),
    "upload": ("cgd_ray.training.uploader", "Uploader", "send"),  # each file
    "export": ("cgd_ray.training.loop", "", "export_model"),
    "commit": ("cgd_ray.training.saving", "states", "commit_checkpoint"),
}


@dataclass(frozen=True, slots=True)
class Kill:
    """When one worker is to die, by SIGKILL or another signal."""

    rank: int
    place: Place
    call: int  # 1, 2, ... of the place's function
    after: bool = False  # the call, not before it
    signal: int = signal.SIGKILL
    saved: bool = False  # only once uploads under way have ended


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended."""

    status: int  # negative: the signal that killed it
    output: str


def run_workers(
    task: TrainTask, stop_after_step: int | None = None, num_workers: int | None = None
) -> None:
    """Train with as many processes as the task says, or as `num_workers` says.

    With `stop_after_step` each is killed (SIGKILL) when it begins the step after that one, in its
    own count from where it began; states that are due by then have been saved.
    """
    number = num_workers or task.train.max_workers
    kills: list[Kill] = []
    if stop_after_step is not None:
        kills = [Kill(r, "step", stop_after_step + 1, saved=True) for r in range(number)]
    for ended in start_workers(task, number, kills).wait():
        wanted = 0 if stop_after_step is None else -signal.SIGKILL
        assert ended.status == wanted, ended.output[-3000:]


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that run."""

    pids: tuple[int, ...]
    logs: tuple[Path, ...]

    def wait(self) -> list[Ended]:
        """Wait for all to end. Once one has failed, the others may hang: they are killed."""
        statuses: dict[int, int] = {}
        deadline, failed = time.monotonic() + LIMIT_S, None
        while len(statuses) < len(self.pids):
            for pid in set(self.pids) - statuses.keys():
                status = _server().status(pid)
                if status is not None:
                    statuses[pid] = status
                    failed = failed or (time.monotonic() if status else None)
            now = time.monotonic()
            if now > deadline or (failed and now > failed + 15):
                for pid in set(self.pids) - statuses.keys():
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        return [
            Ended(statuses[pid], log.read_text(errors="replace"))
            for pid, log in zip(self.pids, self.logs, strict=True)
        ]


def start_workers(task: TrainTask, num_workers: int, kills: list[Kill] | None = None) -> Workers:
    """Start workers that train."""
    folder = Path(tempfile.mkdtemp(prefix="cgd-workers-"))
    (folder / "task.pickle").write_bytes(pickle.dumps((task, kills or [])))
    port = free_port()
    logs = tuple(folder / f"{rank}.log" for rank in range(num_workers))
    pids = tuple(
        _server().start(
            str(folder / "task.pickle"),
            str(logs[rank]),
            {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
            | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_workers),
                "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            },
        )
        for rank in range(num_workers)
    )
    return Workers(pids, logs)


class _Server:
    """The process that workers are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **worker_environment(on_gpu=False)},
        )
        self._lock = threading.Lock()
        atexit.register(self._process.kill)

    def start(self, task: str, log: str, environment: dict[str, str]) -> int:
        return self._ask(["start", task, log, environment])

    def status(self, pid: int) -> int | None:
        """Return how a worker ended; None while it runs."""
        return self._ask(["status", pid])

    def _ask(self, question: list[Any]) -> Any:
        assert self._process.stdin and self._process.stdout
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@cache
def _server() -> _Server:
    return _Server()


def _serve() -> None:
    """Fork a worker for each request. Runs in the server."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    importlib.import_module("cgd_ray.training.loop")
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "start":
            answer = _fork(*arguments)
        else:
            pid, status = os.waitpid(arguments[0], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _fork(task: str, log: str, environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment)
        tempfile.tempdir = None  # TMPDIR may be another
        _work(task, int(environment["RANK"]))
        status = 0
    except BaseException:  # noqa: BLE001 - into the log, and on to the exit status
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _work(path: str, rank: int) -> None:
    """Be one worker."""
    import torch.distributed as dist

    from cgd_ray.training import loop, state_files, stopping

    state_files._FILE_BYTES = 30_000  # so that a tiny model's state has several files
    task, kills = pickle.loads(Path(path).read_bytes())
    for kill in kills:
        if kill.rank == rank:
            _prepare(kill)
    stopping.stop_on_sigterm()
    dist.init_process_group("gloo")
    loop.train_loop(task)
    dist.destroy_process_group()


def _prepare(kill: Kill) -> None:
    module, owner, name = _PLACES[kill.place]
    holder = importlib.import_module(module)
    holder = getattr(holder, owner) if owner else holder
    function: Callable[..., Any] = getattr(holder, name)
    calls = 0

    def watched(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill.call and not kill.after:
            _die(kill)
        result = function(*args, **options)
        if calls == kill.call and kill.after:
            _die(kill)
        return result

    setattr(holder, name, watched)


def _die(kill: Kill) -> None:
    if kill.saved:
        for thread in threading.enumerate():
            if thread.name == "training-state":
                thread.join()
    os.kill(os.getpid(), kill.signal)


if __name__ == "__main__":
    _serve()
