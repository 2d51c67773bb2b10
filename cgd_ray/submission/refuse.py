"""What must not be submitted: secrets, and files that only this machine has."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from cgd_ray.errors import UserError
from cgd_ray.evaluation.tasks import parse_task
from cgd_ray.prompts.locations import GENERATED, HUB
from cgd_ray.settings import Settings

# What keys look like; each is specific enough never to be a path, a name or a number.
_SECRETS = {
    "an API key": r"\b[sr]k-[A-Za-z0-9_-]{12,}",
    "an AWS key id": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "a GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    "a Google key": r"\bAIza[\w-]{30,}",
    "a Slack token": r"\bxox[abprs]-[\w-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a signed web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.",
    "a bearer token": r"(?i)\bbearer\s+[\w.~+/-]{16,}",
    "a password in a URL": r"(?i)\b[a-z][a-z0-9+.-]*://[^\s/@\"']*:[^\s/@\"']+@",
    "a signature in a URL": r"(?i)[?&](X-Amz-Signature|X-Amz-Security-Token|sig)=[\w%+/-]{8,}",
    "a key or password": r"(?i)(?<![a-z])(passw(or)?d|secret(_access)?_key|access_token)\s*="
    r"\s*[\"']?\w",
}
_SECRET_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$")
_SHORTEST_SECRET = 12  # characters; shorter values of variables are words such as `none`


def refuse_secrets(texts: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Refuse to send what looks like a secret, or is the value of one of our own.

    Args:
        texts: what will be sent, by what to call it in a message.
        environment: of this process; values of variables such as `OPENAI_API_KEY` are secrets.

    Raises:
        UserError: the message says where and of what kind, and never repeats the secret.
    """
    own = {
        value: name
        for name, value in environment.items()
        if _SECRET_NAMES.search(name.upper()) and len(value.strip()) >= _SHORTEST_SECRET
    }
    for where, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            kind = next((f"the value of ${own[value]}" for value in own if value in line), None)
            kind = kind or next((k for k, what in _SECRETS.items() if re.search(what, line)), None)
            if kind:
                place = f"{where}, line {number}" if "\n" in text.strip() else where
                raise UserError(
                    f"{place}: this looks like {kind}, and everybody on the cluster could read it "
                    "in the job's files: put keys into files or variables of the nodes and name "
                    "those (teacher.api_key_file, teacher.api_key_env)"
                )


def refuse_client_files(settings: Settings, *, loopback: bool) -> list[str]:
    """Refuse files that the cluster cannot have, and say which it must have.

    A job runs in a folder of its own on the head, so a relative path leads nowhere there.

    Args:
        settings: of the run.
        loopback: whether the cluster's head is this machine.

    Returns:
        Lines about absolute paths, which every node has to have.

    Raises:
        UserError: a path is relative to where this command was typed.
    """
    lines: list[str] = []
    for setting, location in input_files(settings):
        if not location.startswith(("/", "~")):
            raise UserError(
                f"{setting}={location} is a file of this machine, and jobs run on the cluster: put "
                "it on s3://..., or at one absolute path on every node"
            )
        if not loopback:
            lines.append(f"{setting}={location} is expected at that path on every node")
    return lines


def input_files(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the settings that name local files or folders to read, with their values."""
    s = settings
    named = [("prompts.train", s.prompts.train), ("prompts.test", s.prompts.test)]
    named += [("prompts.decontaminate", place) for place in s.prompts.decontaminate or ()]
    specs = [parse_task(text) for text in s.evaluate.tasks]
    named += [("evaluate.tasks", spec.location) for spec in specs]
    for setting, location in named:
        if location and not location.startswith(("s3://", HUB, GENERATED)):
            yield setting, location
    if s.student.model.startswith(("/", "./", "../", "~")):
        yield "student.model", s.student.model
    files = {
        "evaluate.data_dir": s.evaluate.data_dir,
        "teacher.api_key_file": s.teacher.api_key_file,
    }
    for setting, path in files.items():
        if path and not path.startswith("s3://"):
            yield setting, path


def refuse_artefacts(settings: Settings, *, num_nodes: int, loopback: bool) -> list[str]:
    """Refuse artefacts that the cluster's nodes cannot share.

    Args:
        settings: of the run.
        num_nodes: nodes of the cluster now.
        loopback: whether the cluster's head is this machine.

    Returns:
        Lines about what the nodes have to share.

    Raises:
        UserError: they cannot share it.
    """
    root = settings.run.root
    if settings.local.s3_server:
        raise UserError(
            "local.s3_server=true starts a store that only its own process reaches: for a cluster, "
            "set local.s3_server=false and run.root=s3://bucket/prefix (or an absolute folder "
            "that all nodes share)"
        )
    if not root.startswith(("s3://", "/")):
        raise UserError(
            f"run.root={root} is relative to the job's folder, which the cluster removes: set "
            "s3://bucket/prefix, or an absolute folder that all nodes share"
        )
    if settings.local.tutor and num_nodes > 1:
        raise UserError(
            f"local.tutor=true listens on the head alone, and the cluster has {num_nodes} nodes: "
            "set local.tutor=false and teacher.base_url"
        )
    if root.startswith("/") and (num_nodes > 1 or not loopback):
        return [f"run.root={root} has to be one folder that all nodes share; s3:// always is"]
    return []


def work_dir_on_head(work_dir: str) -> str | None:
    """Return the words that put `run.work_dir` below the home folder on the head.

    Caches, logs and the report should outlive the job's own folder. Absolute folders stay: None.

    Raises:
        UserError: the path leaves that folder.
    """
    path = PurePosixPath(work_dir)
    if path.is_absolute():
        return None
    if ".." in path.parts or work_dir.startswith("~") or not re.fullmatch(r"[\w./ -]+", work_dir):
        raise UserError(
            f"run.work_dir={work_dir}: a submitted job takes an absolute folder of the head, or "
            "one below its home folder, such as .cgd"
        )
    return f'run.work_dir="$HOME/{path}"'
