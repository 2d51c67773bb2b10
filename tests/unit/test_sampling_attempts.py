"""Attempts on record, with engines that die in the middle of an answer."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pyarrow as pa
import pytest

from cgd_ray.errors import UserError
from cgd_ray.sampling.answers import ANSWERS, is_quarantined
from cgd_ray.sampling.attempts import AttemptRecord, Attempts, forget_attempts
from cgd_ray.sampling.guard import Chunk, max_deaths
from cgd_ray.store import open_store

IDS = [f"p{i}/0" for i in range(20)]


class EngineDied(BaseException):
    """The end of the process: nothing after it runs."""


@pytest.fixture
def record(tmp_path: Path) -> AttemptRecord:
    return AttemptRecord(str(tmp_path), "drafts-1", 2)


def markers(record: AttemptRecord) -> list[str]:
    return [entry.key for entry in open_store(record.root).list("drafts-1/attempts/")]


def engine(deadly: set[int]) -> Callable[[Chunk], Awaitable[pa.Table]]:
    async def answer(chunk: Chunk) -> pa.Table:
        await asyncio.sleep(0)
        rows = range(chunk.start, chunk.stop)
        if deadly.intersection(rows):
            raise EngineDied
        return pa.table([[str(i) for i in rows], [1 for _ in rows], ["" for _ in rows]], ANSWERS)

    return answer


def run_until_answered(record: AttemptRecord, deadly: set[int]) -> tuple[pa.Table, int]:
    """Start an engine again each time it dies; return the answers and the number of deaths."""
    for num_deaths in range(100):
        try:
            return asyncio.run(Attempts(record).run(IDS, engine(deadly))), num_deaths
        except EngineDied:
            assert markers(record)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("deadly", [set(), {0}, {19}, {3, 4}])
def test_all_but_the_poison_rows_are_answered_in_order(record: AttemptRecord, deadly: set[int]):
    answers, num_deaths = run_until_answered(record, deadly)
    assert num_deaths <= max(len(deadly) * max_deaths(20, 2), 0)
    assert answers.schema.equals(ANSWERS)
    for i, row in enumerate(answers.to_pylist()):
        assert is_quarantined(row["__inference_error__"]) == (i in deadly)
        assert row["generated_text"] == ("" if i in deadly else str(i))
    assert not markers(record)


def test_an_engine_that_always_dies_is_not_blamed_on_the_rows(record: AttemptRecord):
    with pytest.raises(UserError, match="it is the engine, not the rows"):
        run_until_answered(record, set(range(20)))


def test_a_lost_batch_has_the_engine_to_itself(record: AttemptRecord):
    """While a suspect is in the engine nothing else is; whoever came before is waited for."""
    with pytest.raises(EngineDied):
        asyncio.run(Attempts(record).run(IDS, engine({1})))
    running: set[str] = set()
    seen: list[set[str]] = []

    async def answer_for(name: str, chunk: Chunk) -> pa.Table:
        running.add(name)
        seen.append(set(running))
        for _ in range(20):
            await asyncio.sleep(0.001)
        running.remove(name)
        return await engine(set())(chunk)

    async def all_at_once() -> None:
        attempts = Attempts(record)
        names = ["before", "suspect", "after 1", "after 2"]
        ids = {name: IDS if name == "suspect" else [f"{name}/0"] for name in names}
        await asyncio.gather(
            *(attempts.run(ids[n], lambda chunk, n=n: answer_for(n, chunk)) for n in names)
        )

    asyncio.run(all_at_once())
    assert all("suspect" not in together or together == {"suspect"} for together in seen)
    assert any(len(together) > 1 for together in seen)  # the others do run side by side
    assert not markers(record)


def test_what_killed_processes_left_is_forgotten_with_the_stage(record: AttemptRecord):
    with pytest.raises(EngineDied):
        asyncio.run(Attempts(record).run(IDS, engine({1})))
    store = open_store(record.root)
    store.put("drafts-2/attempts/other.shared", b"")
    forget_attempts(store, "drafts-1")
    assert not markers(record)
    assert list(store.list("drafts-2/"))
