"""When the parts of a streamed answer are sent."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

Part = TypeVar("Part")

_AT_ONCE = 2  # the part that names the role, and the first token


async def first_at_once(
    parts: AsyncGenerator[Part, None],
    batched: Callable[[AsyncGenerator[Part, None]], AsyncGenerator[list[Part], None]],
) -> AsyncGenerator[list[Part], None]:
    """Yield the first parts as they come, and what follows in batches.

    Ray Serve LLM gathers parts for 50 ms, which spares its processes most of the work, and would
    make every reader wait that much longer for the first word.

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
