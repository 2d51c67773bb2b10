"""The run's teacher in this process, for few questions: no cluster, but the run's journal."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.spending import journal_folder, spent_usd
from cgd_ray.teacher.backend import open_backend
from cgd_ray.teacher.governor import Governor, Grant, Report, limits_of
from cgd_ray.teacher.journal import Journal, read_index
from cgd_ray.teacher.journaled import JournaledTeacher
from cgd_ray.teacher.permits import Permits
from cgd_ray.teacher.prices import check_budget, price_of


@asynccontextmanager
async def journaled_teacher(ctx: RunContext, base_url: str) -> AsyncIterator[JournaledTeacher]:
    """Hold the run's teacher in this process, its answers kept in the run's journal.

    Args:
        ctx: the run.
        base_url: root of the teacher's API.

    Raises:
        UserError: there is a cap on money and no price.
    """
    # A few rows at once are not worth a day's wait: they are asked, and paid, as chats.
    t = ctx.settings.teacher.model_copy(update={"mode": "chat"})
    check_budget(t, price_of(t))
    governor = Governor(limits_of(t, spent_usd(ctx)))

    async def exchange(report: Report) -> Grant:
        return governor.exchange(report)

    backend = open_backend(t, base_url)
    permits = Permits(exchange, t.max_in_flight, price_of(t))
    journal = Journal(ctx.store, journal_folder(ctx), read_index(ctx.store))
    try:
        yield JournaledTeacher(backend, permits, journal, t)
    finally:
        await permits.close()
        await backend.close()
