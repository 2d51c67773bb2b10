"""When the parts of a streamed answer are sent."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

Part = TypeVar("Part")

_AT_ONCE = 2  # the part that names the role, and the first token
_GATHER_MS = 50.0  # as Ray Serve LLM does
# An engine on CPUs shares them with the processes that pass its parts on: all of its answers
# together send 40 parts a second, and no answer fewer than 2.5.
_CPU_MS_AN_ANSWER, _CPU_MOST_MS = 25.0, 400.0


def gather_ms(num_answers: int, *, on_gpu: bool) -> float:
    """Return for how long the parts of one answer are gathered, in milliseconds.

    Args:
        num_answers: streamed by this engine at the moment.
        on_gpu: what the engine runs on.
    """
    if on_gpu:
        return _GATHER_MS
    return min(_CPU_MOST_MS, max(_GATHER_MS, num_answers * _CPU_MS_AN_ANSWER))


async def first_at_once(
    parts: AsyncGenerator[Part, None],
    batched: Callable[[AsyncGenerator[Part, None]], AsyncGenerator[list[Part], None]],
) -> AsyncGenerator[list[Part], None]:
    """Yield the first parts as they come, and what follows in batches.

    Ray Serve LLM gathers parts for some time, which spares its processes most of the work, and
    would make every reader wait that much longer for the first word.

    Args:
        parts: of one answer; it is closed when this generator is.
        batched: gathers parts in lists.
    """
    async with aclosing(parts):
        num_sent = 0
        async for part in parts:
            yield [part]
            num_sent += 1
            if num_sent == _AT_ONCE:
                break
        async with aclosing(batched(parts)) as batches:
            async for batch in batches:
                yield batch
