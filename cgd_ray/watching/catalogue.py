"""Every metric that we export, by name: pure. Code, dashboard and docs agree on this list.

Names are Prometheus's: base units, and `_total` for what only grows. Ray puts `ray_` before them.
"""

from dataclasses import dataclass
from typing import Literal

RAY_PREFIX = "ray_"  # Ray's exporter adds it to every name
TOTAL = "_total"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ("run",)

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return RAY_PREFIX + self.name


METRICS = (
    Metric(
        "cgd_rows_total",
        "counter",
        "Rows that a stage committed, by state: ok, failed, rejected",
        ("run", "stage", "state"),
    ),
    Metric(
        "cgd_stage_rows",
        "gauge",
        "Rows of a stage that need no more work, those of earlier attempts included",
        ("run", "stage"),
    ),
    Metric("cgd_stage_rows_expected", "gauge", "Rows that a stage will have", ("run", "stage")),
    Metric(
        "cgd_sampler_tokens_total",
        "counter",
        "Tokens of the student's drafts, by kind: prompt, generated",
        ("run", "kind"),
    ),
    Metric(
        "cgd_teacher_calls_total",
        "counter",
        "Calls of the teacher that ended, by status: ok, rate_limited (429), error",
        ("run", "status"),
    ),
    Metric("cgd_teacher_retries_total", "counter", "Of the calls that ended, those asked again"),
    Metric(
        "cgd_teacher_tokens_total",
        "counter",
        "Tokens of the teacher, by kind: prompt, cached (prompt tokens of its cache), generated",
        ("run", "kind"),
    ),
    Metric(
        "cgd_teacher_answer_seconds_total",
        "counter",
        "Seconds from question to answer, added up over the calls with status ok",
    ),
    Metric("cgd_teacher_cost_dollars_total", "counter", "What the teacher's answers cost"),
    Metric(
        "cgd_teacher_spent_dollars",
        "gauge",
        "What the run's teacher has cost, earlier attempts included",
    ),
    Metric(
        "cgd_teacher_at_risk_dollars",
        "gauge",
        "What calls that ended without an answer may have cost on top",
    ),
    Metric("cgd_teacher_calls_in_flight", "gauge", "Calls of the teacher under way"),
    Metric("cgd_teacher_calls_allowed", "gauge", "Calls that may be under way at once, as learnt"),
    Metric("cgd_teacher_pause_seconds", "gauge", "What is left of a pause that the teacher asked"),
    Metric("cgd_teacher_rows_waiting", "gauge", "Drafts that wait for the teacher"),
    Metric("cgd_training_steps_total", "counter", "Optimiser steps taken"),
    Metric("cgd_training_step", "gauge", "The last step, counted from 1"),
    Metric("cgd_training_steps_expected", "gauge", "Optimiser steps that training will take"),
    Metric(
        "cgd_training_tokens_total",
        "counter",
        "Tokens trained on, by kind: target (they carry loss), context",
        ("run", "kind"),
    ),
    Metric("cgd_training_seconds_total", "counter", "Seconds spent in optimiser steps"),
    Metric(
        "cgd_training_data_wait_seconds_total",
        "counter",
        "Seconds of the steps in which a worker waited for data, the mean over workers",
    ),
    Metric("cgd_training_loss_nats", "gauge", "Loss of the last step, mean over target tokens"),
    Metric("cgd_training_gradient_norm", "gauge", "Global norm of the last step, before clipping"),
    Metric("cgd_training_learning_rate", "gauge", "Learning rate of the last step"),
    Metric("cgd_training_mfu_ratio", "gauge", "Model FLOPs utilisation of the last step"),
    Metric("cgd_training_padding_ratio", "gauge", "Places of the last step without a token"),
    Metric("cgd_training_peak_memory_bytes", "gauge", "Most memory that rank 0 has held so far"),
    Metric(
        "cgd_gateway_requests_total",
        "counter",
        "Requests by path and status; 401, 413, 429 and so on are the gateway's",
        ("path", "status"),
    ),
    Metric(
        "cgd_gateway_request_seconds",
        "histogram",
        "Seconds from a request's headers to the end of its answer",
        ("path",),
    ),
    Metric("cgd_gateway_in_flight", "gauge", "Requests under way or waiting for an engine", ()),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric(name: str) -> Metric:
    """Return the metric of a name. Raises KeyError."""
    return _BY_NAME[name]
