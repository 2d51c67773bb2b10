"""A teacher asked directly: retries, and neither journal nor permits."""

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.asking import Teacher, ask
from cgd_ray.teacher.completion import Completion


class PlainAsker:
    """Puts a teacher behind the interface that chains ask through."""

    def __init__(self, teacher: Teacher, max_attempts: int) -> None:
        self._teacher = teacher
        self._max_attempts = max_attempts

    async def ask(self, messages: list[Message], max_tokens: int, template: str) -> Completion:
        return await ask(self._teacher, messages, max_tokens, self._max_attempts)
