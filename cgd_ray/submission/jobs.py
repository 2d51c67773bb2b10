"""Jobs as Ray's Jobs API tells of them, and those that we submit."""

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cgd_ray.progress import clock

DONE = ("SUCCEEDED", "FAILED", "STOPPED")
# Ray would kill a job three seconds after it asked it to stop. Training saves a state first.
_STOP_WAIT_S = 600
_STOPPED_STATUS = 130
_COLUMNS = ("id", "verb", "run", "status", "started (UTC)", "took")
# Jobs that were submitted by hand say by their command what they do.
_COMMAND = re.compile(r"(?:jobs/(?P<script>\w+)\.py|-m cgd_ray\.cli (?P<verb>\w+)) +(?P<run>\S+)")


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be."""

    id: str
    entrypoint: str  # shell command that the head runs in the working directory
    runtime_env: Mapping[str, Any]
    metadata: Mapping[str, str]

    def body(self) -> dict[str, Any]:
        """Return it as the API takes it."""
        return {
            "submission_id": self.id,
            "entrypoint": self.entrypoint,
            "runtime_env": dict(self.runtime_env),
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class Job:
    """A job that a cluster knows."""

    id: str
    status: str  # PENDING, RUNNING or one of DONE
    entrypoint: str
    verb: str  # "" where nothing says
    run: str
    message: str  # of Ray, about what happened
    exit_code: int | None  # of the driver; None where it did not come to an end by itself
    started_ms: int  # Unix time
    ended_ms: int | None
    runtime_env: Mapping[str, Any]
    metadata: Mapping[str, str]

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status in DONE

    @property
    def exit_status(self) -> int:
        """What the command that follows it exits with: the job's own status."""
        if self.status == "SUCCEEDED":
            return 0
        if self.status == "STOPPED":
            return _STOPPED_STATUS
        return self.exit_code if self.exit_code is not None and 0 < self.exit_code < 256 else 1


def submission(
    verb: str,
    run: str,
    run_file: str,
    text: str,
    arguments: Sequence[str],
    uri: str,
    for_shell: str | None = None,
) -> Submission:
    """Return the job of a verb.

    Args:
        verb: what `cgd` shall do.
        run: name of the run.
        run_file: relative name of the run file in the working directory.
        text: what the run file holds; kept with the job, so that it can be packed again.
        arguments: overrides and options, as they stand.
        uri: of the package.
        for_shell: a last argument, which the head's shell is to expand.
    """
    words = [*map(shlex.quote, arguments), *([for_shell] if for_shell else [])]
    return Submission(
        id=_new_id(run, verb),
        entrypoint=" ".join(["python -m cgd_ray.cli", verb, shlex.quote(run_file), *words]),
        runtime_env=_environment(uri),
        metadata={
            "cgd_verb": verb,
            "cgd_run": run,
            "cgd_run_file": run_file,
            "cgd_run_file_text": text,
        },
    )


def resubmission(job: Job, uri: str | None) -> Submission:
    """Return the job that goes on where another ended: the same command in the same folder.

    Args:
        job: the one that ended.
        uri: of a package that takes the place of one that the cluster has lost.
    """
    return Submission(
        id=_new_id(job.run or "job", job.verb or "resumed"),
        entrypoint=job.entrypoint,
        runtime_env={**job.runtime_env, **(_environment(uri) if uri else {})},
        metadata={**job.metadata, "cgd_resumes": job.id},
    )


def job_of(told: Mapping[str, Any]) -> Job:
    """Return a job from the API's answer."""
    metadata = told.get("metadata") or {}
    command = _COMMAND.search(told.get("entrypoint") or "")
    by_hand = (command["script"] or command["verb"], command["run"]) if command else ("", "")
    return Job(
        id=told.get("submission_id") or told.get("job_id") or "",
        status=told["status"],
        entrypoint=told.get("entrypoint") or "",
        verb=metadata.get("cgd_verb", by_hand[0]),
        run=metadata.get("cgd_run", by_hand[1]),
        message=told.get("message") or "",
        exit_code=told.get("driver_exit_code"),
        started_ms=told.get("start_time") or 0,
        ended_ms=told.get("end_time"),
        runtime_env=told.get("runtime_env") or {},
        metadata=metadata,
    )


def table(jobs: Sequence[Job], now_ms: int) -> str:
    """Return jobs as aligned lines, the newest last."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for job in sorted(jobs, key=lambda job: job.started_ms):
        started = datetime.fromtimestamp(job.started_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        took_s = max(0, (job.ended_ms or now_ms) - job.started_ms) / 1000
        status = job.status.lower()
        if job.status == "FAILED" and job.exit_code is not None:
            status += f" ({job.exit_code})"
        rows.append((job.id, job.verb or "-", job.run or "-", status, started, clock(took_s)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _environment(uri: str) -> dict[str, Any]:
    # Everything in it can be read by whoever reaches the cluster, and is logged.
    return {"working_dir": uri, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)}}


def _new_id(run: str, verb: str) -> str:
    # Ours to choose: a submission whose answer is lost can be sent again and is found to be there.
    return f"{run}-{verb}-{secrets.token_hex(4)}"
