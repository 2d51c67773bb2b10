"""The trainings of a study as processes of their own on the study's cluster, each resumable.

A cell is `cgd train` and then `cgd evaluate` with its overrides: what a reader would type.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.processes import child
from cgd_ray.study.cells import Cell

_POLL_S = 0.2
_PATIENCE_S = 120.0  # to save a training state when the study is stopped
_VERBS = ("train", "evaluate")


@dataclass(frozen=True, slots=True)
class Launch:
    """How the processes are started."""

    run_file: str
    extra: tuple[str, ...]  # overrides that say where they run, not what
    environment: dict[str, str]
    log_dir: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one cell ended."""

    cell: Cell
    seconds: float
    failure: str | None  # one line; None: trained and evaluated


def run_cells(
    cells: Sequence[Cell],
    launch: Launch,
    study: str,
    at_once: int,
    begun: Callable[[Cell, Path], None],
    ended: Callable[[Outcome], None],
) -> None:
    """Train and evaluate cells, some at once; a failed one does not stop the others.

    Args:
        cells: what to run, in this order.
        launch: how.
        study: its name, for the names of runs.
        at_once: cells under way at a time. They are evaluated one after the other: a cluster has
            one Serve.
        begun: is told each cell's start and the log of its training, in the cell's thread.
        ended: is told each cell's end, in this thread.
    """
    stopping, serving = threading.Event(), threading.Lock()

    def one(cell: Cell) -> Outcome:
        start = time.monotonic()
        failure = None
        if not stopping.is_set():
            begun(cell, _log(cell, "train", launch, study))
        for verb in _VERBS:
            if failure is None and not stopping.is_set():
                failure = _run(cell, verb, launch, study, stopping, serving)
        return Outcome(cell, time.monotonic() - start, failure)

    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(one, cell) for cell in cells]
        try:
            for future in as_completed(waiting):
                ended(future.result())
        finally:
            # Of use if the study is stopped: the pool waits for cells, and they for their end.
            stopping.set()
            for future in waiting:
                future.cancel()


def _run(
    cell: Cell,
    verb: str,
    launch: Launch,
    study: str,
    stopping: threading.Event,
    serving: threading.Lock,
) -> str | None:
    name, log = cell.run_name(study), _log(cell, verb, launch, study)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")  # of the last attempt alone
    overrides = [*cell.overrides, *launch.extra, f"run.name={name}"]
    command = [sys.executable, "-m", "cgd_ray.cli", verb, launch.run_file, *overrides]
    if verb == "evaluate":
        while not serving.acquire(timeout=_POLL_S):
            if stopping.is_set():
                return "stopped"
    try:
        with child(command, log, launch.environment, _PATIENCE_S) as process:
            status = _wait(process, stopping)
    finally:
        if verb == "evaluate":
            serving.release()
    return None if status == 0 else _reason(log, verb, status)


def _log(cell: Cell, verb: str, launch: Launch, study: str) -> Path:
    return launch.log_dir / f"{cell.run_name(study)}-{verb}.log"


def _wait(process: subprocess.Popen[bytes], stopping: threading.Event) -> int | None:
    """Return its exit status; None if the study is being stopped first."""
    while not stopping.is_set():
        try:
            return process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return None


def _reason(log: Path, verb: str, status: int | None) -> str:
    if status is None:
        return "stopped"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.startswith(f"cgd {verb}: ")]
    return said[-1] if said else f"cgd {verb} ended with status {status}: see {log}"
