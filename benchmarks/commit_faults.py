"""A writer killed at every change that a commit makes on S3: ours beside Ray's own checkpoint.

Both run on the same S3 server behind the same proxy. At one request a run, before it reaches the
server or before its answer comes back, every process of the job is killed with SIGKILL; then the
same job runs to its end, and what readers see is compared with what went in.
"""

import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow.parquet as pq

from benchmarks.results import write_result
from benchmarks.stock_checkpoint import NUM_ROWS, NUM_SHARDS
from tests.support.commit_fire import kill_everywhere
from tests.support.fault_proxy import Fault, Operation, healthy
from tests.support.row_checker import Violations, check_ids
from tests.support.s3 import BUCKET, S3UnderFire, s3_under_fire

_WANTED = [str(number) for number in range(NUM_ROWS)]
_LIMIT_S, _ATTEMPTS = 300, 3
_SHARD = 1  # the one whose requests are cut: others come before and after it
# The requests by which Ray's commit of a shard makes or removes an object, in order.
_STEPS = {
    "write the pending ids": ("POST", r"/checkpoint/.*\.pending\.parquet\?uploadId"),
    "write the rows": ("POST", r"/rows/.*\.parquet\?uploadId"),
    "move the ids: copy": ("PUT", r"/checkpoint/(?!.*\.pending)[^?]*\.parquet$"),
    "move the ids: delete": ("DELETE", r"/checkpoint/.*\.pending\.parquet"),
}
Cut = Literal["cut_before", "cut_after"]
_CUTS: tuple[Cut, ...] = ("cut_before", "cut_after")


@dataclass(frozen=True, slots=True)
class StockRun:
    """What a killed job on Ray's checkpoint left after it was run again."""

    step: str
    cut: str
    violations: Violations


def main() -> None:
    """Measure both and write the result file."""
    with tempfile.TemporaryDirectory() as name, s3_under_fire(Path(name)) as fire:
        ours = kill_everywhere(fire, num_shards=NUM_SHARDS)
        print(f"ours: {ours}", flush=True)
        stock = list(_kill_stock(fire))
        again = _run_finished_job_again(fire)
    wrong = [run for run in stock if run.violations != Violations()]
    baseline: dict[str, Any] = {
        "what": "ray.data CheckpointConfig, write_parquet",
        "num_rows": NUM_ROWS,
        "num_kills": len(stock),
        "num_kills_with_violations": len(wrong),
        "rows_lost": sum(run.violations.lost for run in stock),
        "rows_duplicated": sum(run.violations.duplicated for run in stock),
        "kills": [asdict(run) for run in stock],
        "finished_job_run_again": asdict(again),
    }
    path = write_result(
        "commit-faults",
        ".venv/bin/python -m benchmarks.commit_faults",
        ours={
            "num_requests": ours.num_operations,
            "num_kills": ours.num_kills,
            **asdict(ours.violations),
        },
        baseline=baseline,
        ratio=0.0 if ours.violations == Violations() else 1.0,
        spread={},
        passed=ours.violations == Violations() and bool(wrong),
    )
    print(path)


def _kill_stock(fire: S3UnderFire) -> Iterator[StockRun]:
    for number, (step, cut) in enumerate(product(_STEPS, _CUTS)):
        root = f"{BUCKET}/stock-{number}"
        if not _killed_at(fire, root, step, cut):
            raise AssertionError(f"the job never came to: {step}")
        _run_to_end(root)
        run = StockRun(step, cut, check_ids(_WANTED, _ids(fire, f"stock-{number}")))
        print(f"stock: {run}", flush=True)
        yield run


def _killed_at(fire: S3UnderFire, root: str, step: str, cut: Cut) -> bool:
    """Run the job until a step of the chosen shard; return whether it got there."""
    method, pattern = _STEPS[step]
    job = _job(root)
    reached: list[Operation] = []

    def kill() -> None:
        driver = psutil.Process(job.pid)
        for process in [driver, *driver.children(recursive=True)]:
            process.kill()

    def plan(operation: Operation) -> Fault | None:
        if reached:
            return Fault("cut_before")  # nothing of a dead job may reach the server
        shard = f"_{_SHARD:06d}" in operation.target
        if shard and operation.method == method and re.search(pattern, operation.target):
            reached.append(operation)
            return Fault(cut, then=kill)
        return None

    fire.proxy.plan = plan
    job.communicate(timeout=_LIMIT_S)
    fire.proxy.plan = healthy
    return bool(reached)


def _run_finished_job_again(fire: S3UnderFire) -> Violations:
    """Run a job that succeeded a second time, as a resubmission would."""
    for _ in range(2):
        _run_to_end(f"{BUCKET}/stock-again")
    return check_ids(_WANTED, _ids(fire, "stock-again"))


def _job(root: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.stock_checkpoint", root]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _run_to_end(root: str) -> None:
    """Run the job until it succeeds, as a user would; a crowded machine may fail to start Ray."""
    for _ in range(_ATTEMPTS):
        job = _job(root)
        _, errors = job.communicate(timeout=_LIMIT_S)
        if job.returncode == 0:
            return
    raise AssertionError(errors.decode()[-3000:])


def _ids(fire: S3UnderFire, name: str) -> list[str]:
    """Return the ids of all rows that the job's output holds."""
    store = fire.direct(name)
    files = [entry.key for entry in store.list("rows/") if entry.key.endswith(".parquet")]
    tables = [pq.read_table(io.BytesIO(store.get(key))) for key in files]
    return [str(row) for table in tables for row in table["id"].to_pylist()]


if __name__ == "__main__":
    main()
