"""The teacher as a Ray Data actor: a table of drafts in, committed shards out.

It imports no Ray: Ray Data instantiates it, and so can a test or a debugger.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from cgd_ray.records import Critique, Draft, Failure, Prompt, Record, from_rows
from cgd_ray.settings import TeacherSettings
from cgd_ray.shards import commit_shard, counts_table
from cgd_ray.store import open_store
from cgd_ray.teacher.backend import Backend, open_backend
from cgd_ray.teacher.chain import teach_all


class TeacherActor:
    """Holds one API client; criticises, refines and commits the drafts of each table.

    A table's rows are `prompt`, `draft` and, where an earlier attempt has paid for it, `critique`.

    Args:
        settings: of the teacher.
        base_url: root of its API.
        root: of the store.
        folder: of the stage.
    """

    def __init__(self, settings: TeacherSettings, base_url: str, root: str, folder: str) -> None:
        self._settings = settings
        self._base_url = base_url
        self._store = open_store(root)
        self._folder = folder
        self._client: Backend | None = None
        self._gate = asyncio.Semaphore(settings.max_in_flight)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Return counts; refinements, critiques and failures are in the store by then."""
        rows = batch.to_pylist()
        prompts = from_rows((row["prompt"] for row in rows), Prompt)
        drafts = from_rows((row["draft"] for row in rows), Draft)
        critiques = [_critique(row.get("critique")) for row in rows]
        todo = list(zip(prompts, drafts, critiques, strict=True))
        taught = await teach_all(self._teacher(), todo, self._settings, self._gate)
        outcomes = taught.outcomes
        records: list[Record] = [*outcomes.records, *outcomes.failures]
        if records:
            await asyncio.to_thread(commit_shard, self._store, self._folder, records)
        failed = len(outcomes.failures)
        stop = f"{taught.stop.reason}: {taught.stop.detail}" if taught.stop else None
        made = len({record.key for record in outcomes.records}) - _half_made(outcomes.failures)
        return counts_table(made, failed, stop)

    def _teacher(self) -> Backend:
        # Made on first use: the key is read where it is used.
        if self._client is None:
            self._client = open_backend(self._settings, self._base_url)
        return self._client


def _critique(row: dict[str, Any] | None) -> Critique | None:
    return from_rows([row], Critique)[0] if row else None


def _half_made(failures: Sequence[Failure]) -> int:
    """Return how many rows have a critique but failed at the refinement."""
    return sum(failure.stage == "refinements" for failure in failures)
