"""Test prompts -> answers of served models -> scores, over HTTP as any client would ask."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.evaluation.grading import Grade
from cgd_ray.evaluation.scoring import score_response
from cgd_ray.records import Failure, Outcomes, Prompt, Score
from cgd_ray.sampling.draft import build_draft_messages
from cgd_ray.settings import EvaluateSettings
from cgd_ray.teacher.chain import ask
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.openai_backend import OpenAIBackend

_MAX_ATTEMPTS = 4

Question = tuple[str, Prompt]  # model id on the endpoint, test prompt


async def answer_questions(
    base_url: str, questions: Sequence[Question], settings: EvaluateSettings
) -> AsyncIterator[tuple[Question, Completion | TeacherError]]:
    """Yield every question with its greedy answer, or why there is none, as they arrive.

    Args:
        base_url: root of an OpenAI-compatible endpoint.
        questions: who is asked what.
        settings: limits.
    """
    models = {model for model, _ in questions}
    clients = {
        model: OpenAIBackend(
            base_url, model, "none", 0.0, settings.timeout_s, settings.max_in_flight
        )
        for model in models
    }
    gate = asyncio.Semaphore(settings.max_in_flight)

    async def one(question: Question) -> tuple[Question, Completion | TeacherError]:
        model, prompt = question
        messages = build_draft_messages(prompt)
        async with gate:
            try:
                answer = await ask(clients[model], messages, settings.max_tokens, _MAX_ATTEMPTS)
            except TeacherError as error:
                return question, error
        return question, answer

    try:
        for task in asyncio.as_completed([one(question) for question in questions]):
            yield await task
    finally:
        for client in clients.values():
            await client.close()


def score_answers(
    answers: Sequence[tuple[Question, Completion | TeacherError]], pool: GraderPool
) -> Outcomes:
    """Return a score for every answer and a transient failure for every question without one."""
    answered = [(m, p, a) for (m, p), a in answers if isinstance(a, Completion)]
    grades = pool.grade_all([GradeItem(p.reference or "", a.text) for _, p, a in answered])
    scores = [
        _score(model, prompt, answer, grade)
        for (model, prompt, answer), grade in zip(answered, grades, strict=True)
    ]
    failures = [
        Failure(f"{model}/{prompt.id}", "scores", error.reason, error.detail, error.permanent)
        for (model, prompt), error in answers
        if isinstance(error, TeacherError)
    ]
    return Outcomes(tuple(scores), tuple(failures))


def _score(model: str, prompt: Prompt, answer: Completion, grade: Grade) -> Score:
    return score_response(model, prompt, answer.text, answer.num_output_tokens, grade)
