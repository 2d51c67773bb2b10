"""The first parts of an answer are sent at once, the rest in batches, and nothing stays open."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from cgd_ray.serving.streams import first_at_once, gather_ms


async def in_pairs(parts: AsyncGenerator[int, None]) -> AsyncGenerator[list[int], None]:
    batch: list[int] = []
    async for part in parts:
        batch.append(part)
        if len(batch) == 2:
            yield batch
            batch = []
    if batch:
        yield batch


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, []), (1, [[0]]), (2, [[0], [1]]), (5, [[0], [1], [2, 3], [4]])],
)
def test_the_first_two_parts_come_alone(number: int, expected: list[list[int]]) -> None:
    async def parts() -> AsyncGenerator[int, None]:
        for part in range(number):
            yield part

    async def found() -> list[list[int]]:
        return [batch async for batch in first_at_once(parts(), in_pairs)]

    assert asyncio.run(found()) == expected


@pytest.mark.parametrize("num_read", [1, 2, 3])
def test_closing_it_ends_the_answer(num_read: int) -> None:
    ended = False

    async def parts() -> AsyncGenerator[int, None]:
        nonlocal ended
        try:
            for part in range(100):
                yield part
        finally:
            ended = True

    async def read() -> None:
        stream = first_at_once(parts(), in_pairs)
        for _ in range(num_read):
            await anext(stream)
        await stream.aclose()
        assert ended

    asyncio.run(read())


def test_an_error_of_the_answer_is_passed_on() -> None:
    async def parts() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("the engine said no")

    async def read() -> None:
        async for _ in first_at_once(parts(), in_pairs):
            pass

    with pytest.raises(ValueError, match="said no"):
        asyncio.run(read())


@pytest.mark.parametrize(
    ("num_answers", "expected"), [(0, 50), (1, 50), (2, 50), (8, 200), (16, 400), (64, 400)]
)
def test_a_busy_cpu_engine_sends_fewer_and_larger_parts(num_answers: int, expected: float) -> None:
    assert gather_ms(num_answers, on_gpu=False) == expected
    assert gather_ms(num_answers, on_gpu=True) == 50
