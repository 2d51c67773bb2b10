"""The teacher as a Ray Data actor: a table of drafts in, committed shards out.

It imports no Ray: Ray Data instantiates it, and so can a test or a debugger.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cgd_ray.records import Failure, Record
from cgd_ray.settings import TeacherSettings
from cgd_ray.shards import commit_shard
from cgd_ray.store import open_store
from cgd_ray.teacher.backend import Backend, open_backend
from cgd_ray.teacher.chain import teach_all
from cgd_ray.teacher.governor import Grant, Report
from cgd_ray.teacher.journal import Journal, JournalIndex
from cgd_ray.teacher.journaled import JournaledTeacher
from cgd_ray.teacher.permits import Permits
from cgd_ray.teacher.prices import price_of
from cgd_ray.teacher.rows import read_teacher_rows
from cgd_ray.teacher.second_try import SecondTry


@dataclass(frozen=True, slots=True)
class TeacherPost:
    """Where an actor works: addresses, folders, and whom it tells."""

    base_url: str
    root: str  # of the store
    folder: str  # of the stage
    journal_folder: str  # of this run's own answers
    index: JournalIndex  # what the journal held when the stage began
    exchange: Callable[[Report], Awaitable[Grant]]  # the limits of the whole cluster
    count: Callable[[int, int], None]  # is told the rows committed: made, failed
    reuse_refusals: bool  # False asks again what was refused before
    regenerate: bool = False  # critiques that leak are asked for once more


class TeacherActor:
    """Holds one API client; criticises, refines and commits the drafts of each table.

    Args:
        settings: of the teacher.
        post: where it works.
    """

    def __init__(self, settings: TeacherSettings, post: TeacherPost) -> None:
        self._settings = settings
        self._post = post
        self._store = open_store(post.root)
        # Twice the calls: while some rows' answers are kept and parsed, others are asked about.
        self._gate = asyncio.Semaphore(2 * settings.max_in_flight)
        self._client: Backend | None = None
        self._teacher: JournaledTeacher | None = None
        self._mender = SecondTry() if post.regenerate else None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Commit what the teacher makes of the rows; return no rows."""
        rows = read_teacher_rows(batch)
        asker = self._asker()
        taught = await teach_all(asker, rows, self._settings, self._gate, self._mender)
        outcomes = taught.outcomes
        records: list[Record] = [*outcomes.records, *outcomes.failures]
        if records:
            await asyncio.to_thread(commit_shard, self._store, self._post.folder, records)
        made = len({record.key for record in outcomes.records}) - _half_made(outcomes.failures)
        self._post.count(made, len(outcomes.failures))
        return pa.table({"rows": [len(rows)]})

    async def close(self) -> None:
        """Tell the governor the last of the calls and close the connections."""
        if self._client is not None:
            await self._permits.close()
            await self._client.close()
        if self._mender is not None:
            self._mender.close()

    def _asker(self) -> JournaledTeacher:
        # Made on first use: its parts belong to the event loop that calls.
        if self._teacher is None:
            s, post = self._settings, self._post
            self._client = open_backend(s, post.base_url)
            self._permits = Permits(post.exchange, s.max_in_flight, price_of(s))
            self._teacher = JournaledTeacher(
                self._client,
                self._permits,
                Journal(self._store, post.journal_folder, post.index),
                s,
                reuse_refusals=post.reuse_refusals,
            )
        return self._teacher


def _half_made(failures: Sequence[Failure]) -> int:
    """Return how many rows have a critique but failed at the refinement."""
    return sum(failure.stage == "refinements" for failure in failures)
