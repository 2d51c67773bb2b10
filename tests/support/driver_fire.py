"""`cgd generate` under fire: its driver, its workers or its nodes are killed until it is done.

The teacher is a process that logs every call that it accepts; the checker compares input ids with
committed ids and with that log. Everything goes through the command line, as for a user.
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cgd_ray.identity import content_id
from cgd_ray.processes import child, wait_until
from cgd_ray.records import Critique, Draft, Record, Refinement
from cgd_ray.shards import committed_files, read_records
from cgd_ray.store import Store
from tests.support import logging_teacher
from tests.support.row_checker import Violations, check_ids
from tests.support.s3 import BUCKET, S3UnderFire

_LIMIT_S = 600
_RUN = """
[run]
name = "{name}"
root = "{root}"
work_dir = "{work}"
num_cpus = 4

[prompts]
train = "{prompts}"
test = "reasoning-gym:chain_sum"
num_test = 2

[student]
max_model_len = 256

[sampling]
engine = "echo"
max_tokens = 64
rows_per_request = 8

[teacher]
base_url = "{teacher}"
model = "scripted-1"
allow_private_address = true
max_in_flight = 8

[evaluate]
max_tokens = 64
"""


@dataclass(frozen=True, slots=True)
class GenerateReport:
    """What came of a run that was killed and repeated until it was done."""

    num_rows: int
    num_kills: int
    num_calls: int  # that the teacher accepted
    num_extra_calls: int  # of these, for an answer that it had been asked for before
    num_recommitted: int  # rows in more than one commit: readers take each once
    seconds: float
    violations: Violations

    @property
    def extra_share(self) -> float:
        """Extra calls as a share of the calls that were needed."""
        return self.num_extra_calls / max(1, self.num_calls - self.num_extra_calls)


@dataclass(frozen=True, slots=True)
class Job:
    """One run: its command, its prompts, and where it leaves traces."""

    run_file: Path
    log: Path
    calls: Path
    store: Store  # past the proxy
    problems: tuple[str, ...]

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start `cgd generate`; its output goes to the log."""
        command = [sys.executable, "-m", "cgd_ray.cli", "generate", str(self.run_file)]
        with self.log.open("ab") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **environment}
            )

    def num_calls(self) -> int:
        """Return the calls that the teacher accepted so far."""
        return len(logging_teacher.calls(self.calls))

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a run that is to succeed."""
        status = process.wait(_LIMIT_S)
        assert status == 0, f"status {status}; {self.log.read_text()[-2000:]}"


@contextmanager
def job(
    fire: S3UnderFire, folder: Path, name: str, num_rows: int, latency_ms: int
) -> Iterator[Job]:
    """Hold a teacher and a run of `num_rows` prompts for the length of the block."""
    folder.mkdir(parents=True)
    problems = tuple(f"{n} + {n + 1} - 3 =" for n in range(num_rows))
    prompts, run_file = folder / "prompts.jsonl", folder / "run.toml"
    prompts.write_text("".join(json.dumps({"prompt": p, "answer": "0"}) + "\n" for p in problems))
    port, calls, log = folder / "port", folder / "calls.jsonl", folder / "teacher.log"
    command = [sys.executable, "-m", "tests.support.logging_teacher"]
    with child([*command, str(port), str(calls), str(latency_ms)], log) as process:
        wait_until(port.exists, process, "the teacher", log, 60)
        teacher = f"http://127.0.0.1:{port.read_text()}/v1"
        run_file.write_text(
            _RUN.format(
                name=name,
                root=f"{BUCKET}/{name}",
                work=folder / "work",
                prompts=prompts,
                teacher=teacher,
            )
        )
        yield Job(run_file, folder / "driver.log", calls, fire.direct(name), problems)


def undisturbed(job: Job) -> GenerateReport:
    """Run once, without a fault."""
    began = time.monotonic()
    job.finish(job.start())
    return check(job, 0, began)


def kill_drivers(job: Job, seed: int, num_kills: int) -> GenerateReport:
    """`kill -9` the driver at random times, the same command again, until it is done.

    Half of the kills fall anywhere, the others after the attempt's first call of the teacher.
    """
    draw, began, kills = random.Random(seed), time.monotonic(), 0
    while kills < num_kills:
        process, before = job.start(), job.num_calls()
        if draw.random() < 0.5:
            wait_or_end(process, lambda before=before: job.num_calls() > before)
            delay_s = draw.uniform(0, 3)
        else:
            delay_s = draw.uniform(0, 25)
        if ended_within(process, delay_s):
            break
        process.kill()
        process.wait()
        kills += 1
    job.finish(job.start())
    return check(job, kills, began)


def kill_workers(job: Job, seed: int, every_s: float) -> GenerateReport:
    """`kill -9` one of the run's Ray workers, chosen at random, every few seconds."""
    draw, began, kills = random.Random(seed), time.monotonic(), 0
    process = job.start()
    wait_or_end(process, lambda: job.num_calls() > 0)
    while not ended_within(process, every_s):
        workers = _ray_workers(process.pid)
        if workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                draw.choice(workers).kill()
                kills += 1
    job.finish(process)
    return check(job, kills, began)


def check(job: Job, num_kills: int, began: float) -> GenerateReport:
    """Compare input ids, committed ids and the teacher's log."""
    wanted = {f"{content_id(problem)}/0" for problem in job.problems}
    total, recommitted = Violations(), 0
    for stage, kinds in (("drafts", (Draft,)), ("refinements", (Critique, Refinement))):
        folder = _stage_folder(job.store, stage)
        for kind in kinds:
            rows: dict[str, Record] = read_records(job.store, folder, kind)
            total += check_ids(wanted, rows)
            if kind is not Draft:
                wrong = [row for row in rows.values() if _text(row) != logging_teacher.TEXT]
                total += Violations(corrupt=len(wrong))
            files = committed_files(job.store, folder, kind)
            recommitted += sum(len(file.ids) for file in files) - len(rows)
    calls = logging_teacher.calls(job.calls)
    return GenerateReport(
        num_rows=len(wanted),
        num_kills=num_kills,
        num_calls=len(calls),
        num_extra_calls=len(calls) - len(set(calls)),
        num_recommitted=recommitted,
        seconds=round(time.monotonic() - began, 1),
        violations=total,
    )


def _text(row: Record) -> str:
    assert isinstance(row, (Critique, Refinement))
    return row.text


def _stage_folder(store: Store, stage: str) -> str:
    """Return the folder of a stage, whose name ends in a hash of its settings."""
    names = {entry.key.split("/")[0] for entry in store.list(f"{stage}-")}
    (name,) = (n for n in names if re.fullmatch(rf"{stage}-[0-9a-f]+", n))
    return name


def _ray_workers(driver: int) -> list[psutil.Process]:
    """Return the busy Ray workers below a driver: actors and tasks, no idle ones."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = (process.cmdline() or [""])[0]
            if title.startswith("ray::") and not title.startswith("ray::IDLE"):
                found.append(process)
    return found


def wait_or_end(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Wait until a condition holds or a process ends."""
    deadline = time.monotonic() + _LIMIT_S
    while not ready() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Give a process some seconds to end; return whether it did."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None
