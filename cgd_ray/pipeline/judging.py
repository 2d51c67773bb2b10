"""The teacher as a judge of leaks, through the run's journal: asked once, paid once."""

import asyncio
from collections.abc import Sequence

from cgd_ray.audit.judge import (
    MAX_TOKENS,
    TEMPLATE,
    build_judge_messages,
    parse_judgement,
    to_be_judged,
)
from cgd_ray.errors import UserError
from cgd_ray.examples.objectives import Chain
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.local_teacher import journaled_teacher
from cgd_ray.pipeline.teacher_address import teacher_address
from cgd_ray.teacher.completion import TeacherError


def judge(ctx: RunContext, chains: Sequence[Chain], number: int) -> dict[str, bool | None]:
    """Return the teacher's judgements by draft id; None where it gave none.

    Args:
        ctx: of the run.
        chains: all that were taught.
        number: most chains to ask about.

    Raises:
        UserError: the teacher cannot be asked, or is the tutor, which judges nothing.
    """
    if ctx.settings.local.tutor:
        raise UserError(
            "--judge asks the run's teacher, and the tutor judges nothing: use it with a run whose "
            "teacher is a model (local.tutor=false)"
        )
    wanted = to_be_judged(chains, number, ctx.settings.run.seed)
    with teacher_address(ctx) as base_url, ctx.progress.stage("judge", len(wanted), "rows") as line:
        judged = asyncio.run(_judged(ctx, base_url, wanted))
        lost = sum(verdict is None for verdict in judged.values())
        line.update(len(judged) - lost, lost)
    return judged


async def _judged(ctx: RunContext, base_url: str, chains: list[Chain]) -> dict[str, bool | None]:
    gate = asyncio.Semaphore(ctx.settings.teacher.max_in_flight)
    async with journaled_teacher(ctx, base_url) as teacher:

        async def one(chain: Chain) -> bool | None:
            async with gate:
                try:
                    answer = await teacher.ask(build_judge_messages(chain), MAX_TOKENS, TEMPLATE)
                except TeacherError as error:
                    if error.stop:
                        raise UserError(f"the teacher cannot judge: {error.detail}") from error
                    return None
            return parse_judgement(answer.text)

        verdicts = await asyncio.gather(*map(one, chains))
    return {chain.draft.id: verdict for chain, verdict in zip(chains, verdicts, strict=True)}
