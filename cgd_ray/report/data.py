"""What the report page shows: plain values, already counted and measured by the caller.

Shares and accuracies are fractions from 0 to 1, times are seconds, losses are nats per target
token. Every part may be empty: the page then says in words what is missing.
"""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "wrong", "not graded"]


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step that rows pass. Rows of the step before = count + failed + rejected of this one."""

    name: str  # "prompts", "drafted", "critiqued", "refined", "kept"
    count: int  # rows that go on from here
    failed: tuple[tuple[str, int], ...] = ()  # (reason, rows) that could not be made
    rejected: tuple[tuple[str, int], ...] = ()  # (reason, rows) made, and turned away

    @property
    def num_failed(self) -> int:
        """Rows that could not be made here."""
        return sum(count for _, count in self.failed)

    @property
    def num_rejected(self) -> int:
        """Rows turned away here."""
        return sum(count for _, count in self.rejected)

    @property
    def num_accounted(self) -> int:
        """Rows that came in, as far as this step accounts for them."""
        return self.count + self.num_failed + self.num_rejected


@dataclass(frozen=True, slots=True)
class AccuracyBar:
    """Share of the test prompts that one model answers right."""

    label: str  # "base model", "student"
    accuracy: float  # fraction
    low: float  # lower end of the 95 % interval, fraction
    high: float  # upper end, fraction
    num_prompts: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of the student minus that of the base model, over the same prompts."""

    mean: float  # fraction, from -1 to 1
    low: float  # lower end of the 95 % interval
    high: float  # upper end
    p: float  # probability of at least this difference if there were none

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval leaves out zero."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class TaskLine:
    """One task of several, asked in one way."""

    name: str  # "gsm8k one-pass"
    base: float  # accuracy, fraction
    student: float
    base_tokens: float  # generated for an answer, mean
    student_tokens: float
    words: str  # the paired difference, and whether it is significant


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Both models on the same test prompts: the first task, and a line for each."""

    base: AccuracyBar
    student: AccuracyBar
    difference: Difference
    method: str = ""  # a sentence: how answers were graded and the intervals made
    tasks: tuple[TaskLine, ...] = ()  # shown if there are several


@dataclass(frozen=True, slots=True)
class LossPoint:
    """What one optimiser step measured."""

    step: int  # optimiser steps taken
    loss: float  # mean nats per target token
    learning_rate: float


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One chain: what the student drafted and what the teacher made of it."""

    prompt: str
    reference: str | None  # gold final answer; None: the data has none
    draft: str | None  # None, here and below: the row did not get that far
    critique: str | None
    refinement: str | None
    status: Literal["kept", "rejected", "failed"]
    draft_correct: bool | None  # None: not graded
    refinement_correct: bool | None
    reason: str | None = None  # why it was rejected or failed


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One test prompt, answered by both models."""

    prompt: str
    reference: str | None
    base: str  # the base model's answer
    student: str  # the trained student's answer
    base_correct: bool
    student_correct: bool

    @property
    def outcome(self) -> Literal["fixed", "broke", "both right", "both wrong"]:
        """What training changed for this prompt."""
        if self.base_correct:
            return "both right" if self.student_correct else "broke"
        return "fixed" if self.student_correct else "both wrong"


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page, top to bottom."""

    run: str  # name of the run
    date: str  # as it should read: "2025-06-30 14:12 UTC"
    objective: str  # "sft", "distilled_sft", "cft" or "cgd"
    student: str  # model name
    teacher: str  # model name
    evaluation: Evaluation | None = None
    funnel: tuple[FunnelStep, ...] = ()  # from the rows that came in to those kept
    losses: tuple[LossPoint, ...] = ()  # in step order
    stage_seconds: tuple[tuple[str, float], ...] = ()  # (stage, wall-clock seconds)
    rows: tuple[SampleRow, ...] = ()  # all, or a sample: a few thousand stay quick to browse
    answers: tuple[AnswerRow, ...] = ()
    settings_text: str = ""  # resolved settings, TOML or JSON, free of secrets
    versions: tuple[tuple[str, str], ...] = ()  # (package, version)


def verdict(correct: bool | None) -> Verdict:
    """Return the word that the page uses for a grade."""
    if correct is None:
        return "not graded"
    return "right" if correct else "wrong"
