"""What a study found: the records of `study.json`, from which the page and the table are made."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from cgd_ray.study.settings import Match


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share between 0 and 1, with its 95 % interval over prompts and trainings."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """One arm less another on the same prompts, as shares."""

    mean: float
    low: float  # of the 95 % interval
    high: float
    p: float  # two-sided
    p_holm: float  # adjusted for all arms of the same match and task
    wins: int  # prompts that the first is right on more often
    losses: int
    command: str  # that prints it again

    @property
    def significant(self) -> bool:
        """Whether zero is outside the interval and the adjusted p below 5 %."""
        return not self.low <= 0 <= self.high and self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One arm on one task."""

    task: str
    metric: str
    num_prompts: int
    accuracy: Estimate
    by_seed: tuple[float, ...]
    tokens_per_answer: float
    reviser_share: float  # answers that speak of a draft or a critique (docs/evaluation.md, drift)
    over_base: Contrast | None  # this arm less the base; None for the base
    under_reference: Contrast | None  # the reference less this arm; None for the reference


@dataclass(frozen=True, slots=True)
class Costs:
    """What one training of an arm took, the mean over its seeds."""

    num_chains: int
    examples: float  # seen in training, repeats counted
    steps: float
    train_tokens: float  # context and target
    target_tokens: float
    teacher_tokens: float  # of the calls that the objective needs
    usd: float | None  # of those calls; None: no price is known
    drafting_flops: float | None  # of the drafts that the objective needs; None: size not known
    training_flops: float | None
    drafting_worker_s: float  # wall-clock seconds of the stage x its workers, teacher beside it
    training_worker_s: float  # seconds of optimiser steps x workers


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Training loss of an arm at one step, the mean over its seeds."""

    step: int
    tokens: float  # trained on so far
    loss: float  # nats a target token


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm under one match."""

    arm: str
    match: Match
    what: str
    seeds: tuple[int, ...]  # that are finished
    tasks: tuple[TaskResult, ...]
    costs: Costs | None  # None for the base
    curve: tuple[CurvePoint, ...]
    commands: tuple[str, ...]  # one a seed: prints the accuracies again


@dataclass(frozen=True, slots=True)
class FailedCell:
    """A training that did not end."""

    label: str
    reason: str
    command: str


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Everything on the page."""

    study: str
    date: str  # UTC
    command: str  # that does the whole study
    hardware: str
    versions: dict[str, str]
    student: str
    teacher: str
    prompts: str  # where they come from
    reference: str
    num_chains: int  # shared by all arms
    draft_accuracy: float | None  # None: the data has no references
    num_cells: int  # wanted
    num_finished: int
    arms: tuple[ArmResult, ...]
    failed: tuple[FailedCell, ...]

    def of(self, match: Match) -> tuple[ArmResult, ...]:
        """Return the arms under one match."""
        return tuple(arm for arm in self.arms if arm.match == match)

    @property
    def matches(self) -> tuple[Match, ...]:
        """Those that there are results of, in order."""
        return tuple(dict.fromkeys(arm.match for arm in self.arms))


def to_json(result: StudyResult) -> bytes:
    """Return `study.json`."""
    return TypeAdapter(StudyResult).dump_json(result, indent=1) + b"\n"


def from_json(data: bytes | str | dict[str, Any]) -> StudyResult:
    """Return what `to_json` was given."""
    adapter = TypeAdapter(StudyResult)
    return adapter.validate_python(data) if isinstance(data, dict) else adapter.validate_json(data)
