"""Test prompts -> answers of served models -> scores, over HTTP as any client would ask."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.evaluation.grading import Grade
from cgd_ray.evaluation.scoring import score_response
from cgd_ray.records import Failure, Outcomes, Prompt
from cgd_ray.sampling.draft import build_draft_messages
from cgd_ray.settings import EvaluateSettings
from cgd_ray.teacher.asking import ask
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.credentials import HeaderKey
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.wire.base import ChatOptions
from cgd_ray.teacher.wire.openai import OPENAI

_MAX_ATTEMPTS = 4

Question = tuple[str, Prompt]  # model id on the endpoint, test prompt


async def answer_questions(
    base_url: str,
    questions: Sequence[Question],
    settings: EvaluateSettings,
    key: str | None = None,
) -> AsyncIterator[tuple[Question, Completion | TeacherError]]:
    """Yield every question with its greedy answer, or why there is none, as they arrive.

    Args:
        base_url: root of an OpenAI-compatible endpoint.
        questions: who is asked what.
        settings: limits.
        key: API key of the endpoint; None for one that wants none.
    """
    models = {model for model, _ in questions}
    limits = HttpLimits(settings.timeout_s, settings.max_in_flight, allow_private=True)
    clients = {
        model: HttpTeacher(OPENAI, ChatOptions(base_url, model, 0.0, False), HeaderKey(key), limits)
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
    """Return a score or a transient failure for every question.

    A question that the endpoint will always refuse (a prompt over its length) is answered wrong,
    with the refusal as the reason: one such prompt must not keep the others from being compared.
    """
    answered = [(m, p, a) for (m, p), a in answers if isinstance(a, Completion)]
    grades = pool.grade_all([GradeItem(p.reference or "", a.text) for _, p, a in answered])
    scores = [
        score_response(model, prompt, answer.text, answer.num_output_tokens, grade)
        for (model, prompt, answer), grade in zip(answered, grades, strict=True)
    ]
    errors = [(m, p, e) for (m, p), e in answers if isinstance(e, TeacherError)]
    scores += [
        score_response(model, prompt, "", 0, Grade(False, None, f"refused: {error.detail}"))
        for model, prompt, error in errors
        if error.permanent
    ]
    failures = [
        Failure(f"{model}/{prompt.id}", "scores", error.reason, error.detail, permanent=False)
        for model, prompt, error in errors
        if not error.permanent
    ]
    return Outcomes(tuple(scores), tuple(failures))
