"""What answers chats, and what answers questions for good."""

import asyncio
import random
from typing import Protocol

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.retry import backoff_s


class Teacher(Protocol):
    """Anything that answers chats."""

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        """Return the answer to one chat. Raises TeacherError."""
        ...


class Asker(Protocol):
    """Anything that answers questions for good: what a chain is asked through."""

    async def ask(self, messages: list[Message], max_tokens: int, template: str) -> Completion:
        """Return the answer to one chat. Raises TeacherError once trying again is no use."""
        ...


async def ask(
    teacher: Teacher, messages: list[Message], max_tokens: int, max_attempts: int
) -> Completion:
    """Call until there is an answer, the error is final or the attempts are spent.

    Raises:
        TeacherError: the last error.
    """
    draw = random.Random()
    for attempt in range(1, max_attempts + 1):
        try:
            return await teacher.complete(messages, max_tokens)
        except TeacherError as error:
            if error.permanent or error.stop or attempt == max_attempts:
                raise
            await asyncio.sleep(backoff_s(attempt, error.retry_after_s, draw))
    raise AssertionError("max_attempts is at least 1")
