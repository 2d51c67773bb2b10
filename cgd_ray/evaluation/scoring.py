"""Transcript -> score: the record of one graded answer of one served model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cgd_ray.evaluation.grader_pool import GradeItem
from cgd_ray.evaluation.grading import Grade
from cgd_ray.evaluation.methods import Transcript
from cgd_ray.evaluation.problems import Problem
from cgd_ray.evaluation.setup import Setup
from cgd_ray.records import Score


@dataclass(frozen=True, slots=True)
class Question:
    """One answer that is wanted."""

    model: str  # "base" or "student"
    problem: Problem
    sample: int
    setup: Setup

    @property
    def key(self) -> str:
        """That of its score."""
        return f"{self.setup.id}/{self.model}/{self.problem.id}/{self.sample}"


def questions_of(
    setup: Setup, problems: Iterable[Problem], models: Sequence[str]
) -> list[Question]:
    """Return every answer that a setup wants."""
    return [
        Question(model, problem, sample, setup)
        for problem in problems
        for model in models
        for sample in range(setup.num_samples)
    ]


def grade_item(problem: Problem, response: str) -> GradeItem:
    """Return what the graders are given."""
    return GradeItem(
        problem.gold, response, problem.kind, problem.relative_tolerance, problem.checks
    )


def score_transcript(question: Question, transcript: Transcript, grade: Grade) -> Score:
    """Return the score of one answer.

    Args:
        question: what was asked of whom.
        transcript: all that was generated for it.
        grade: the verdict on its response.
    """
    return Score(
        model=question.model,
        prompt_id=question.problem.id,
        response=transcript.response,
        extracted=grade.extracted,
        correct=grade.correct,
        reason=grade.reason,
        num_tokens=transcript.num_tokens,
        task=question.setup.task,
        method=question.setup.method,
        sample=question.sample,
        setup=question.setup.id,
        question=question.problem.question,
        gold=question.problem.gold,
        turns=transcript.turns,
        num_teacher_tokens=transcript.num_teacher_tokens,
        finish_reason=transcript.finish_reason,
    )
