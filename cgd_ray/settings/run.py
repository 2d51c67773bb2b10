"""Where a run lives, and the servers that it starts itself."""

from typing import Literal

from pydantic import Field

from cgd_ray.settings.base import Section


class RunSettings(Section):
    """Where a run lives."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run, used in titles and in the served model's id."""
    root: str
    """Where artefacts are kept: a folder or `s3://bucket/prefix`."""
    work_dir: str = ".cgd"
    """Local folder for caches, logs, the report and the data of servers that the run starts."""
    seed: int = 1
    """Seed of everything that is drawn: prompts, drafts, data order, bootstrap."""
    rounds: int = Field(default=1, ge=1)
    """Times to draft, teach and train: each round's student drafts for the next and is trained
    further (iterated CGD)."""
    lease_s: float = Field(default=30.0, ge=1)
    """A run has one owner: after so many silent seconds another driver may take it over."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs of a local Ray; None takes the machine's, and at least 8, because most of our
    actors wait rather than compute."""


class LocalSettings(Section):
    """Servers that the run starts on this machine and stops again: nothing to install or pay."""

    s3_server: bool = False
    """Start a SeaweedFS S3 server (data under `run.work_dir`) and use it for `run.root`."""
    tutor: bool = False
    """Start the tutor and use it as the teacher. It solves exactly one expression of integers with
    + - * / and brackets (reasoning-gym's `chain_sum`, `basic_arithmetic`), and `leg_counting`."""
    tutor_reveal: Literal["none", "step", "answer"] = "none"
    """How much the tutor's critique gives away: nothing, the wrong step's result, the answer."""
