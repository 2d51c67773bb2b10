"""A question to the teacher: from the journal, or paid for once and kept before it is used."""

import asyncio
from dataclasses import dataclass

from cgd_ray.prompts.messages import Message
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.asking import Teacher
from cgd_ray.teacher.completion import Completion, TeacherError, is_usable
from cgd_ray.teacher.governed import governed_ask
from cgd_ray.teacher.journal import Journal, Question
from cgd_ray.teacher.permits import Permits


def question_of(
    settings: TeacherSettings, messages: list[Message], max_tokens: int, template: str
) -> Question:
    """Return what is asked when a chat is."""
    s = settings
    return Question(s.backend, s.model, s.temperature, max_tokens, template, tuple(messages))


def unanswered() -> TeacherError:
    """Return the error of a question that batches brought no answer to: no call is made for it."""
    detail = "the batch ended without an answer: --retry-failed asks again"
    return TeacherError("not_answered", detail)


class JournaledTeacher:
    """Asks a teacher through the journal, the permits and the retries.

    It belongs to one event loop.

    Args:
        teacher: answers what the journal does not.
        permits: of the whole run, for calls.
        journal: of answers.
        settings: of the teacher.
        reuse_refusals: False asks again what the journal has only an unusable answer to.
    """

    def __init__(
        self,
        teacher: Teacher,
        permits: Permits,
        journal: Journal,
        settings: TeacherSettings,
        *,
        reuse_refusals: bool = True,
    ) -> None:
        self._teacher = teacher
        self._permits = permits
        self._journal = journal
        self._settings = settings
        self._reuse_refusals = reuse_refusals
        self._running: dict[str, asyncio.Task[Completion]] = {}

    async def ask(self, messages: list[Message], max_tokens: int, template: str) -> Completion:
        """Return the answer to one chat; two rows that ask the same at once pay once.

        Raises:
            TeacherError: there is none, or no call can succeed any more (`stop`). With
                teacher.mode="batch" only the journal answers.
            StoreError: the answer could not be kept.
        """
        question = question_of(self._settings, messages, max_tokens, template)
        task = self._running.get(question.key)
        if task is None:
            task = asyncio.create_task(self._answer(question))
            self._running[question.key] = task
            task.add_done_callback(lambda _: self._running.pop(question.key, None))
        return await asyncio.shield(task)

    async def _answer(self, question: Question) -> Completion:
        known = await self._journal.find(question)
        in_batches = self._settings.mode == "batch"  # which have asked again by now
        if known is not None and (self._reuse_refusals or in_batches or is_usable(known)):
            return known
        if in_batches:
            raise unanswered()
        paid = _Kept(self._teacher, self._journal, question)
        messages = list(question.messages)
        return await governed_ask(
            paid, self._permits, messages, question.max_tokens, self._settings.max_attempts
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """A teacher whose call has ended once its answer is kept: a stop waits for both."""

    teacher: Teacher
    journal: Journal
    question: Question

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        answer = await self.teacher.complete(messages, max_tokens)
        await self.journal.keep(self.question, answer)
        return answer
