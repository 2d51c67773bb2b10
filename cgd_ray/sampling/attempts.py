"""Attempts on record: a marker in the store for as long as rows are in an engine.

A marker that its own batch finds again is an engine that died: nothing else leaves one behind but a
killed process, which costs the batch no more than a second run alone. `guard` decides what follows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyarrow as pa

from cgd_ray.errors import UserError
from cgd_ray.sampling.answers import quarantined
from cgd_ray.sampling.guard import (
    Chunk,
    batch_name,
    count_deaths,
    marker_name,
    plan_chunks,
)
from cgd_ray.store import Store, open_store

_TOO_MANY_POISON = 4  # rows of one batch; else an engine that always dies restarts for days
_SHARED = "shared"  # the batch ran beside others, so its death may be theirs


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """Where attempts are kept on record, and how many a row has."""

    root: str  # of the store
    folder: str  # key prefix of the stage
    max_attempts: int  # engines that one row may bring down


class Attempts:
    """Runs batches in one engine, each on record. One event loop, one engine."""

    def __init__(self, record: AttemptRecord) -> None:
        self._record = record
        self._store: Store = open_store(record.root)
        self._gate = _Gate()

    async def run(
        self, row_ids: Sequence[str], answer: Callable[[Chunk], Awaitable[pa.Table]]
    ) -> pa.Table:
        """Return the answers to a batch, and a quarantine note for each row that is poison.

        A batch without a past runs beside others. One that was lost runs with the engine to itself,
        so that a death is its own.

        Args:
            row_ids: of the batch's N rows.
            answer: asks the engine for the answers to a chunk, one row each, in order.

        Returns:
            N rows as `answers.ANSWERS` says.

        Raises:
            UserError: row after row brings the engine down, so the engine is at fault.
        """
        batch = batch_name(row_ids)
        async with self._gate.shared():
            if await self._open(batch, _SHARED):
                answers = await answer(Chunk(0, len(row_ids)))
                await self._close(batch, _SHARED)
                return answers
        async with self._gate.alone():
            return await self._run_suspects(batch, len(row_ids), answer)

    async def _run_suspects(
        self, batch: str, num_rows: int, answer: Callable[[Chunk], Awaitable[pa.Table]]
    ) -> pa.Table:
        markers = await asyncio.to_thread(self._markers, batch)
        deaths = count_deaths(markers)
        plan = plan_chunks(num_rows, deaths, self._record.max_attempts)
        if len(plan.poison) >= _TOO_MANY_POISON:
            raise UserError(
                f"the engine died {sum(deaths.values())} times on one batch, for each of "
                f"{len(plan.poison)} rows alone: it is the engine, not the rows; check "
                "student.model and the sampling settings against the engine's log"
            )
        parts: dict[int, pa.Table] = {}
        for chunk in plan.chunks:
            marker = marker_name(chunk, deaths.get(chunk, 0) + 1)
            await self._open(batch, marker)
            parts[chunk.start] = await answer(chunk)
            await self._close(batch, marker)
        for row in plan.poison:
            parts[row] = quarantined(deaths[Chunk(row, row + 1)])
        for marker in [*markers, _SHARED]:
            await self._close(batch, marker)
        return pa.concat_tables(parts[start] for start in sorted(parts))

    async def _open(self, batch: str, marker: str) -> bool:
        return await asyncio.to_thread(self._store.put_new, self._key(batch, marker), b"")

    async def _close(self, batch: str, marker: str) -> None:
        await asyncio.to_thread(self._store.delete, self._key(batch, marker))

    def _markers(self, batch: str) -> list[str]:
        prefix = self._key(batch, "")
        names = [entry.key.removeprefix(prefix) for entry in self._store.list(prefix)]
        return [name for name in names if name != _SHARED]

    def _key(self, batch: str, marker: str) -> str:
        return f"{_folder(self._record.folder)}{batch}.{marker}"


def forget_attempts(store: Store, folder: str) -> None:
    """Delete a stage's markers: those that killed processes left, once the stage is finished."""
    for entry in list(store.list(_folder(folder))):
        store.delete(entry.key)


def _folder(folder: str) -> str:
    return f"{folder}/attempts/"


class _Gate:
    """Lets many batches in at once, or one alone. One that waits to be alone goes first."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._num_shared = 0
        self._num_waiting = 0
        self._is_alone = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not (self._is_alone or self._num_waiting))
            self._num_shared += 1
        try:
            yield
        finally:
            async with self._changed:
                self._num_shared -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._changed:
            self._num_waiting += 1
            try:
                await self._changed.wait_for(lambda: not (self._is_alone or self._num_shared))
            finally:
                self._num_waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            async with self._changed:
                self._is_alone = False
                self._changed.notify_all()
