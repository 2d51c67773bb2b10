"""Questions -> answers of served models -> scores, over HTTP as any client would ask."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.evaluation.grading import Grade
from cgd_ray.evaluation.methods import Ask, Transcript, answer_problem
from cgd_ray.evaluation.scoring import Question, grade_item, score_transcript
from cgd_ray.prompts.messages import Message
from cgd_ray.records import Failure, Outcomes
from cgd_ray.sampling.draft import draft_seed
from cgd_ray.settings import EvaluateSettings
from cgd_ray.teacher.asking import ask
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.credentials import HeaderKey
from cgd_ray.teacher.http import HttpLimits, HttpTeacher
from cgd_ray.teacher.wire.base import ChatOptions
from cgd_ray.teacher.wire.openai import OPENAI

_MAX_ATTEMPTS = 4

Answer = tuple[Question, Transcript | TeacherError]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server of the models under test."""

    base_url: str  # root of its API
    names: Mapping[str, str]  # "base" and "student" -> the model's id there
    key: str | None  # API key; None sends none


class SampledModel:
    """One served model, asked with sampling settings and a seed.

    Args:
        client: of the server.
        settings: of the evaluation.
        seed: of this answer; None: nothing is drawn.
    """

    def __init__(self, client: HttpTeacher, settings: EvaluateSettings, seed: int | None) -> None:
        self._client = client
        self._sampling = {"top_p": settings.top_p, "seed": seed} if seed is not None else {}

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        """Return the answer to one chat. Raises TeacherError."""
        options = self._client.options
        request = self._client.wire.build_request(options, messages, max_tokens)
        body = {**json.loads(request.body), **self._sampling}
        request = replace(request, body=json.dumps(body).encode())
        return self._client.wire.parse_response(options, await self._client.send(request))


async def answer_questions(
    endpoint: Endpoint,
    questions: Sequence[Question],
    settings: EvaluateSettings,
    ask_teacher: Ask | None = None,
) -> AsyncIterator[Answer]:
    """Yield every question with its answer, or why there is none, as they arrive.

    At most `max_in_flight` questions are under way at once.

    Args:
        endpoint: that serves the models.
        questions: who is asked what.
        settings: limits and sampling.
        ask_teacher: for teacher critiques at test time.
    """
    limits = HttpLimits(settings.timeout_s, settings.max_in_flight, allow_private=True)
    clients = {
        model: HttpTeacher(
            OPENAI,
            ChatOptions(endpoint.base_url, name, settings.temperature, caches_first_turn=False),
            HeaderKey(endpoint.key),
            limits,
        )
        for model, name in endpoint.names.items()
    }
    gate = asyncio.Semaphore(settings.max_in_flight)

    async def one(question: Question) -> Answer:
        model = SampledModel(clients[question.model], settings, _seed(question))

        async def asked(messages: list[Message]) -> Completion:
            return await ask(model, messages, settings.max_tokens, _MAX_ATTEMPTS)

        async with gate:
            try:
                method = question.setup.method
                return question, await answer_problem(question.problem, method, asked, ask_teacher)
            except TeacherError as error:
                return question, error

    running = [asyncio.create_task(one(question)) for question in questions]
    try:
        for task in asyncio.as_completed(running):
            yield await task
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for client in clients.values():
            await client.close()


def score_answers(answers: Sequence[Answer], pool: GraderPool) -> Outcomes:
    """Return a score or a transient failure for every question.

    A question that the endpoint will always refuse (a prompt over its length) is answered wrong,
    with the refusal as the reason: one such prompt must not keep the others from being compared.
    """
    answered = [(q, a) for q, a in answers if isinstance(a, Transcript)]
    grades = pool.grade_all([grade_item(q.problem, a.response) for q, a in answered])
    scores = [
        score_transcript(question, transcript, grade)
        for (question, transcript), grade in zip(answered, grades, strict=True)
    ]
    errors = [(q, e) for q, e in answers if isinstance(e, TeacherError)]
    nothing = Transcript("", (), 0, 0, "refused")
    scores += [
        score_transcript(question, nothing, Grade(False, None, f"refused: {error.detail}"))
        for question, error in errors
        if error.permanent
    ]
    failures = [
        Failure(question.key, "scores", error.reason, error.detail, permanent=False)
        for question, error in errors
        if not error.permanent
    ]
    return Outcomes(tuple(scores), tuple(failures))


def _seed(question: Question) -> int | None:
    if question.setup.temperature == 0:
        return None
    return draft_seed(f"{question.problem.id}/{question.sample}", question.setup.seed)
