"""From what a stage knows of itself to figures for the catalogue's metrics: pure.

Each class follows one attempt at a stage and is given its whole state again and again; counters
grow by the difference to the state before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cgd_ray.pipeline.desk import DeskStatus
from cgd_ray.progress import LineCounts
from cgd_ray.teacher.governor import Usage
from cgd_ray.training.metrics import StepMetrics
from cgd_ray.watching.catalogue import metric

_LINES = frozenset({"prompts", "curation", "examples", "evaluation"})  # generation has the desk
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Figure:
    """A value of one metric."""

    name: str  # in the catalogue
    value: float  # of a counter what it grew by, of a gauge what it is
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StageRows:
    """What an attempt at a stage found when it began."""

    expected: int  # rows of the stage in the end
    before: int  # of these, those that need no work any more


class _Figures:
    """Collects figures, with what a counter grew by."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._totals: dict[tuple[str, ...], float] = {}
        self._found: list[Figure] = []

    def total(self, name: str, total: float, **labels: str) -> None:
        """Note where a counter stands."""
        key = (name, *labels.values())
        before = self._totals.get(key, 0.0)
        grown = total if total < before else total - before  # one that fell began anew
        self._totals[key] = total
        if grown > 0:
            self._add(name, grown, labels)

    def now(self, name: str, value: float, **labels: str) -> None:
        """Note what a gauge shows."""
        self._add(name, value, labels)

    def taken(self) -> list[Figure]:
        """Return what was noted, and forget it."""
        found, self._found = self._found, []
        return found

    def _add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        known = {"run": self._run, **labels}
        assert set(known) == set(metric(name).labels), name
        self._found.append(Figure(name, value, known))


class GenerationFigures:
    """Figures of drafts and teacher, from the desk.

    Args:
        run: its name.
        stages: those under way.
        waiting: drafts that waited for the teacher when the attempt began; None: it does not work.
    """

    def __init__(self, run: str, stages: Mapping[str, StageRows], waiting: int | None) -> None:
        self._figures = _Figures(run)
        self._stages = dict(stages)
        self._waiting = waiting

    def of(self, status: DeskStatus) -> list[Figure]:
        """Return the figures of one moment."""
        f = self._figures
        for stage, rows in self._stages.items():
            made, failed = status.made.get(stage, 0), status.failed.get(stage, 0)
            f.total("cgd_rows_total", made, stage=stage, state="ok")
            f.total("cgd_rows_total", failed, stage=stage, state="failed")
            f.now("cgd_stage_rows", rows.before + made + failed, stage=stage)
            # A draft that fails now is one that the teacher will not see.
            lost = status.failed.get("drafts", 0) if stage == "teacher" else 0
            f.now("cgd_stage_rows_expected", rows.expected - lost, stage=stage)
        for kind, number in status.tokens.items():
            f.total("cgd_sampler_tokens_total", number, kind=kind)
        if self._waiting is not None:
            self._teacher(status.teacher)
            taught = status.made.get("teacher", 0) + status.failed.get("teacher", 0)
            waiting = self._waiting + status.made.get("drafts", 0) - taught
            f.now("cgd_teacher_rows_waiting", max(0, waiting))
        return f.taken()

    def _teacher(self, usage: Usage) -> None:
        f, totals = self._figures, usage.totals
        errors = totals.num_calls - totals.num_answers - totals.num_rate_limited
        f.total("cgd_teacher_calls_total", totals.num_answers, status="ok")
        f.total("cgd_teacher_calls_total", totals.num_rate_limited, status="rate_limited")
        f.total("cgd_teacher_calls_total", errors, status="error")
        f.total("cgd_teacher_retries_total", totals.num_retries)
        fresh = totals.num_input_tokens - totals.num_cached_tokens
        f.total("cgd_teacher_tokens_total", fresh, kind="prompt")
        f.total("cgd_teacher_tokens_total", totals.num_cached_tokens, kind="cached")
        f.total("cgd_teacher_tokens_total", totals.num_output_tokens, kind="generated")
        f.total("cgd_teacher_answer_seconds_total", totals.latency_s)
        f.total("cgd_teacher_cost_dollars_total", totals.usd)
        f.now("cgd_teacher_spent_dollars", usage.spent_usd)
        f.now("cgd_teacher_at_risk_dollars", usage.at_risk_usd)
        f.now("cgd_teacher_calls_in_flight", usage.num_in_flight)
        f.now("cgd_teacher_calls_allowed", usage.max_in_flight)
        f.now("cgd_teacher_pause_seconds", usage.pause_s)


class TrainingFigures:
    """Figures of training.

    Args:
        run: its name.
        expected: optimiser steps of the whole training.
        before: steps that earlier attempts took; a step that is taken again counts once.
    """

    def __init__(self, run: str, expected: int, before: int) -> None:
        self._figures = _Figures(run)
        self._expected = expected
        self._before = before

    def of(self, steps: Sequence[StepMetrics]) -> list[Figure]:
        """Return the figures of one moment, from all steps so far."""
        f = self._figures
        f.now("cgd_training_steps_expected", self._expected)
        if not steps:
            return f.taken()
        new, last = steps[min(self._before, len(steps)) :], steps[-1]
        targets = sum(m.num_targets for m in new)
        f.total("cgd_training_steps_total", len(new))
        f.total("cgd_training_tokens_total", targets, kind="target")
        f.total(
            "cgd_training_tokens_total", sum(m.num_tokens for m in new) - targets, kind="context"
        )
        f.total("cgd_training_seconds_total", sum(m.seconds for m in new))
        f.total("cgd_training_data_wait_seconds_total", sum(m.data_wait_s for m in new))
        f.now("cgd_training_step", last.step)
        f.now("cgd_training_loss_nats", last.loss)
        f.now("cgd_training_gradient_norm", last.grad_norm)
        f.now("cgd_training_learning_rate", last.learning_rate)
        if last.mfu is not None:
            f.now("cgd_training_mfu_ratio", last.mfu)
        f.now("cgd_training_padding_ratio", last.padding_share)
        f.now("cgd_training_peak_memory_bytes", last.peak_memory_gib * _GIB)
        return f.taken()


class LineFigures:
    """Figures of the stages that the driver works on itself, from their progress lines.

    Args:
        run: its name.
    """

    def __init__(self, run: str) -> None:
        self._figures = _Figures(run)

    def of(self, counts: LineCounts) -> list[Figure]:
        """Return the figures of one moment."""
        if counts.stage not in _LINES:
            return []
        f, stage = self._figures, counts.stage
        f.total("cgd_rows_total", counts.done, stage=stage, state="ok")
        f.total("cgd_rows_total", counts.lost, stage=stage, state=counts.lost_as)
        f.now("cgd_stage_rows", counts.done + counts.lost + counts.skipped, stage=stage)
        if counts.total is not None:
            f.now("cgd_stage_rows_expected", counts.total, stage=stage)
        return f.taken()
