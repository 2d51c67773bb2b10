"""Serving, evaluation and the report."""

from typing import Literal

from pydantic import Field

from cgd_ray.settings.base import Section


class ServeSettings(Section):
    """Ray Serve LLM: base and student behind one OpenAI-compatible address."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """What the engines run on."""
    min_replicas: int = Field(default=1, ge=1)
    """Engines of each model that are always up."""
    max_replicas: int = Field(default=1, ge=1)
    """Engines of each model that autoscaling may reach."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """Memory for the key-value cache of a CPU engine, in GiB."""


class EvaluateSettings(Section):
    """Scores of base and student, asked over HTTP."""

    base_url: str | None = None
    """An endpoint that already serves both models; None: the run serves them itself."""
    max_tokens: int = Field(default=512, ge=1)
    """Longest answer in tokens."""
    max_in_flight: int = Field(default=64, ge=1)
    """Requests under way at once."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Limit on one request."""
    num_resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples behind the interval of the paired difference."""


class ReportSettings(Section):
    """The page."""

    num_rows: int = Field(default=500, ge=0)
    """Most rows that can be browsed in the page."""
