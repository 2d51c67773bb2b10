"""`cgd <verb> RUN.toml --address ...` and `cgd jobs list|logs|stop|resume ID`."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.settings import Settings
from cgd_ray.submission.address import Address, find_address, parse_address
from cgd_ray.submission.client import JobsApi, connect, patiently, version_note
from cgd_ray.submission.following import LogView, follow
from cgd_ray.submission.jobs import Job, Submission, resubmission, submission, table
from cgd_ray.submission.package import Package, pack, run_file_name
from cgd_ray.submission.refuse import (
    refuse_artefacts,
    refuse_client_files,
    refuse_secrets,
    work_dir_on_head,
)

_USER_ERROR, _INTERRUPTED = 2, 130
_NOT_FOUND = 127  # a shell's status for a command that does not exist
_ID = "as `cgd jobs list` shows it"


@dataclass(frozen=True, slots=True)
class Request:
    """A verb as it was typed."""

    verb: str
    run_file: str
    overrides: tuple[str, ...]
    flags: tuple[str, ...]  # such as --retry-failed


def submit(request: Request, settings: Settings, address: str, *, wait: bool) -> int:
    """Submit a verb to a cluster, and follow it; return its exit status, or 130 for Ctrl-C.

    Raises:
        UserError: it is refused here, or the cluster cannot be reached.
    """
    try:
        return _submit(request, settings, address, wait=wait)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _submit(request: Request, settings: Settings, address: str, *, wait: bool) -> int:
    where = parse_address(address)
    text = Path(request.run_file).read_text(encoding="utf-8")
    texts = {f"override {override.partition('=')[0]}": override for override in request.overrides}
    refuse_secrets({request.run_file: text, **texts}, os.environ)
    notes = refuse_client_files(settings, loopback=where.loopback)
    name = run_file_name(Path(request.run_file), Path.cwd())
    package, in_home = pack(name, text), work_dir_on_head(settings.run.work_dir)
    with connect(where) as api:
        nodes = patiently(api.num_nodes, where)
        notes += refuse_artefacts(settings, num_nodes=nodes, loopback=where.loopback)
        notes += _about(api, where)
        job = submission(
            request.verb,
            settings.run.name,
            name,
            text,
            [*request.overrides, *request.flags],
            package.uri,
            in_home,
        )
        for note in notes:
            _say(note)
        _send(api, job, package)
        return _followed(api, job.id) if wait else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `cgd jobs`; return the exit status: a job's own, 2 for a user's error, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="cgd jobs", description="the jobs of a cluster: list, follow, stop and resume them"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (what, _) in _ACTIONS.items():
        action = actions.add_parser(name, help=what, description=what)
        if name != "list":
            action.add_argument("id", metavar="ID", help=_ID)
        action.add_argument(
            "--address",
            help="https://head:8265; else $RAY_API_SERVER_ADDRESS, or $RAY_ADDRESS",
        )
        if name == "resume":
            add_no_wait(action)
    args = parser.parse_args(argv)
    try:
        with connect(find_address(args.address)) as api:
            return _ACTIONS[args.action][1](api, args)
    except UserError as error:
        print(f"cgd jobs {args.action}: {error}", file=sys.stderr)
        return _USER_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED


def add_no_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option that submits and returns."""
    parser.add_argument(
        "--no-wait", action="store_true", help="submit, and do not follow the job's log"
    )


def _list(api: JobsApi, _: argparse.Namespace) -> int:
    print(table(patiently(api.jobs, api.address), time.time_ns() // 1_000_000))
    return 0


def _logs(api: JobsApi, args: argparse.Namespace) -> int:
    return _followed(api, args.id)


def _stop(api: JobsApi, args: argparse.Namespace) -> int:
    """Ask a job to stop, and show how it does so."""
    job = _job(api, args.id)
    if job.done:
        _say(f"{job.id} has {_ended(job)} already")
        return 0
    shown = len(patiently(lambda: api.log(job.id), api.address))
    patiently(lambda: api.stop(job.id), api.address)
    _say(f"asked {job.id} to stop; it keeps what it has made")
    ended = _watched(api, job.id, shown)
    if ended is None:
        return _INTERRUPTED
    _say(f"{job.id} has {_ended(ended)}" + _resume_hint(api, ended))
    return 0


def _resume(api: JobsApi, args: argparse.Namespace) -> int:
    """Submit a job again: the run goes on from what it has made."""
    job = _job(api, args.id)
    if not job.done:
        raise UserError(f"{job.id} is {job.status.lower()}: `cgd jobs logs {job.id}` follows it")
    package = None
    uri = job.runtime_env.get("working_dir", "")
    if uri.startswith("gcs://") and not patiently(lambda: api.has_package(uri), api.address):
        package = _packed_again(job)
        if package.uri != uri:
            _say(f"the cluster has dropped the files of {job.id}: sending those of this cgd_ray")
    again = resubmission(job, package.uri if package else None)
    _send(api, again, package)
    return 0 if args.no_wait else _followed(api, again.id)


def _packed_again(job: Job) -> Package:
    name, text = (job.metadata.get(key) for key in ("cgd_run_file", "cgd_run_file_text"))
    if not name or text is None or name.startswith("/") or ".." in Path(name).parts:
        raise UserError(
            f"the cluster has dropped the files of {job.id}, which cgd did not submit: submit it "
            "as before"
        )
    return pack(name, text)


def _send(api: JobsApi, job: Submission, package: Package | None) -> None:
    """Send package and job.

    Raises:
        KeyboardInterrupt: Ctrl-C; the job may have been submitted.
    """
    try:
        size = ""
        if package is not None:
            patiently(lambda: api.upload(package), api.address)
            size = f" ({package.num_files} files, {len(package.data) / 1e3:,.0f} kB)"
        patiently(lambda: api.submit(job), api.address)
    except KeyboardInterrupt:
        _say(f"interrupted; `{_command('list', '', api.address)}` tells whether {job.id} is there")
        raise
    _say(f"submitted {job.id} to {api.address.url}{size}")


def _followed(api: JobsApi, job_id: str) -> int:
    """Follow a job and say how it ended; return its exit status."""
    job = _watched(api, job_id)
    if job is None:
        return _INTERRUPTED
    if job.message and job.status == "FAILED" and job.exit_code is None:
        _say(job.message.strip())  # of Ray: no driver told it
    if job.exit_code == _NOT_FOUND:
        _say("the head has no `python`: start Ray there with its environment's bin in PATH")
    _say(f"{job.id} has {_ended(job)}" + _resume_hint(api, job))
    return job.exit_status


def _watched(api: JobsApi, job_id: str, shown: int = 0) -> Job | None:
    """Show the log of a job until it ends; None: Ctrl-C, which the job does not notice."""
    view = LogView(sys.stdout)

    def say(text: str) -> None:
        view.close()
        _say(text)

    try:
        return follow(api, job_id, view.show, say, shown=shown)
    except KeyboardInterrupt:
        view.close()
        _say(f"the job goes on; follow it: {_command('logs', job_id, api.address)}")
        _say(f"stop it: {_command('stop', job_id, api.address)}")
        return None
    finally:
        view.close()


def _job(api: JobsApi, job_id: str) -> Job:
    return patiently(lambda: api.job(job_id), api.address)


def _about(api: JobsApi, address: Address) -> list[str]:
    notes = [version_note(patiently(api.ray_version, address))]
    if not address.loopback and not address.encrypted:
        notes.append(
            f"{address.url} is not encrypted: who listens on the way can take the token; use "
            "https://, or a tunnel (ssh -L 8265:localhost:8265 head)"
        )
    return [note for note in notes if note]


def _ended(job: Job) -> str:
    took_s = max(0, (job.ended_ms or job.started_ms) - job.started_ms) / 1000
    words = {"SUCCEEDED": "succeeded", "STOPPED": "stopped", "FAILED": "failed"}
    status = f" with status {job.exit_code}" if job.status == "FAILED" and job.exit_code else ""
    return f"{words.get(job.status, job.status.lower())}{status} after {took_s:.0f} s"


def _resume_hint(api: JobsApi, job: Job) -> str:
    if job.status == "SUCCEEDED" or job.exit_code == _USER_ERROR:
        return ""  # the same again would end the same
    return f"; go on: {_command('resume', job.id, api.address)}"


def _command(action: str, job_id: str, address: Address) -> str:
    return " ".join(part for part in ("cgd jobs", action, job_id, "--address", address.url) if part)


def _say(text: str) -> None:
    print(f"cgd: {text}", file=sys.stderr, flush=True)


_ACTIONS: dict[str, tuple[str, Callable[[JobsApi, argparse.Namespace], int]]] = {
    "list": ("list the cluster's jobs", _list),
    "logs": ("show a job's log, and follow it to its end", _logs),
    "stop": ("let a job save what it has and end", _stop),
    "resume": ("submit a job that ended once more: it goes on from its artefacts", _resume),
}
