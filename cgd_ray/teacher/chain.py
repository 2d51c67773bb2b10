"""One draft's chat with the teacher: critique, then refinement, in two turns or in one answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cgd_ray.records import Critique, Draft, Failure, Outcomes, Prompt
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher import critique, refinement, single
from cgd_ray.teacher.asking import Asker
from cgd_ray.teacher.completion import TeacherError
from cgd_ray.teacher.rows import TeacherRow


class Mender(Protocol):
    """Anything that looks at a critique before the refinement is written from it."""

    async def mended(
        self, teacher: Asker, prompt: Prompt, draft: Draft, critique: Critique, max_tokens: int
    ) -> Critique:
        """Return the critique to go on with. Raises TeacherError."""
        ...


async def teach(
    teacher: Asker, row: TeacherRow, settings: TeacherSettings, mender: Mender | None = None
) -> Outcomes:
    """Return the critique and refinement of a draft, or the failure that ended the chat.

    Args:
        teacher: is asked.
        row: prompt and draft.
        settings: of the teacher.
        mender: looks at critiques of two turns; None: they stay as they are.

    Raises:
        TeacherError: no call can succeed (a refused key, spent money): the stage must stop.
    """
    if settings.turns == 1:
        return await _teach_in_one(teacher, row, settings)
    return await _teach_in_two(teacher, row, settings, mender)


async def _teach_in_one(teacher: Asker, row: TeacherRow, settings: TeacherSettings) -> Outcomes:
    prompt, draft = row
    messages = single.build_single_messages(prompt, draft)
    try:
        answer = await teacher.ask(messages, single_max_tokens(settings), single.TEMPLATE)
    except TeacherError as error:
        return Outcomes(failures=(_failure(draft, "critiques", error),))
    return single.parse_single(draft, answer)


async def _teach_in_two(
    teacher: Asker, row: TeacherRow, settings: TeacherSettings, mender: Mender | None
) -> Outcomes:
    prompt, draft = row
    made: tuple[Critique, ...] = ()
    try:
        messages = critique.build_critique_messages(prompt, draft)
        answer = await teacher.ask(messages, settings.critique_max_tokens, critique.TEMPLATE)
        parsed = critique.parse_critique(draft, answer)
        if isinstance(parsed, Failure):
            return Outcomes(failures=(parsed,))
        made = (parsed,)
        if mender:
            tokens = settings.critique_max_tokens
            parsed = await mender.mended(teacher, prompt, draft, parsed, tokens)
            made = (parsed,)
        messages = refinement.build_refinement_messages(prompt, draft, parsed)
        answer = await teacher.ask(messages, settings.refinement_max_tokens, refinement.TEMPLATE)
    except TeacherError as error:
        return Outcomes(made, (_failure(draft, "refinements" if made else "critiques", error),))
    refined = refinement.parse_refinement(parsed, answer)
    if isinstance(refined, Failure):
        return Outcomes(made, (refined,))
    return Outcomes((parsed, refined))


def single_max_tokens(settings: TeacherSettings) -> int:
    """Return the longest answer that holds a critique and a refinement."""
    return settings.critique_max_tokens + settings.refinement_max_tokens


def _failure(draft: Draft, stage: str, error: TeacherError) -> Failure:
    """Return a call's error as its row's failure. Raises it if no call can succeed."""
    if error.stop:
        raise error
    return Failure(draft.id, stage, error.reason, error.detail, error.permanent)


@dataclass(frozen=True, slots=True)
class TaughtRows:
    """What became of some drafts; `stop` says why those not in `outcomes` were not tried."""

    outcomes: Outcomes
    stop: TeacherError | None


async def teach_all(
    teacher: Asker,
    rows: Sequence[TeacherRow],
    settings: TeacherSettings,
    gate: asyncio.Semaphore,
    mender: Mender | None = None,
) -> TaughtRows:
    """Return the outcomes of many drafts, as many chats at once as the gate lets through.

    An error that no call can survive (a refused key) stops the rest; what was made before it is
    returned.
    """
    stops: list[TeacherError] = []

    async def one(row: TeacherRow) -> Outcomes:
        async with gate:
            if stops:
                return Outcomes()
            try:
                return await teach(teacher, row, settings, mender)
            except TeacherError as error:
                stops.append(error)
                return Outcomes()

    made = await asyncio.gather(*(one(row) for row in rows))
    return TaughtRows(sum(made, start=Outcomes()), stops[0] if stops else None)
