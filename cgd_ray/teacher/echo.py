"""A teacher without a network or a mind: for tests of everything around it, at any scale."""

from collections.abc import Sequence

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.completion import Completion

_CHARACTERS_PER_TOKEN = 4  # of English text, about
_LONGEST_CHARACTERS = 256


class EchoTeacher:
    """Answers at once with the end of the last message.

    Args:
        model: its name in the answers.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        """Return the answer to one chat, the same one each time."""
        longest = min(_LONGEST_CHARACTERS, max_tokens * _CHARACTERS_PER_TOKEN)
        text = messages[-1]["content"][-longest:]
        return Completion(
            text=text,
            model=self._model,
            finish_reason="stop",
            refusal=None,
            num_input_tokens=_tokens(messages),
            # A later turn finds all but its last two messages in the cache.
            num_cached_tokens=_tokens(messages[:-2]) if len(messages) > 2 else 0,
            num_output_tokens=max(1, len(text) // _CHARACTERS_PER_TOKEN),
        )

    async def close(self) -> None:
        """Do nothing: there are no connections."""


def _tokens(messages: Sequence[Message]) -> int:
    return sum(len(message["content"]) for message in messages) // _CHARACTERS_PER_TOKEN
