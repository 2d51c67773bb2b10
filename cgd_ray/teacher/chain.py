"""One draft's two-turn chat with the teacher, with retries: critique, then refinement."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Failure, Outcomes, Prompt
from cgd_ray.settings import TeacherSettings
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.critique import build_critique_messages, parse_critique
from cgd_ray.teacher.refinement import build_refinement_messages, parse_refinement
from cgd_ray.teacher.retry import backoff_s

# What to teach; with the critique where an earlier attempt has paid for it.
TeacherRow = tuple[Prompt, Draft, Critique | None]


class Teacher(Protocol):
    """Anything that answers chats."""

    async def complete(self, messages: list[Message], max_tokens: int) -> Completion:
        """Return the answer to one chat. Raises TeacherError."""
        ...


async def ask(
    teacher: Teacher, messages: list[Message], max_tokens: int, max_attempts: int
) -> Completion:
    """Call until there is an answer, the error is final or the attempts are spent.

    Raises:
        TeacherError: the last error.
    """
    draw = random.Random()
    for attempt in range(1, max_attempts + 1):
        try:
            return await teacher.complete(messages, max_tokens)
        except TeacherError as error:
            if error.permanent or error.stop or attempt == max_attempts:
                raise
            await asyncio.sleep(backoff_s(attempt, error.retry_after_s, draw))
    raise AssertionError("max_attempts is at least 1")


async def teach(teacher: Teacher, row: TeacherRow, settings: TeacherSettings) -> Outcomes:
    """Return the critique and refinement of a draft, or the failure that ended the chat.

    Raises:
        TeacherError: no call can succeed (a refused key): the whole stage must stop.
    """
    prompt, draft, critique = row
    made: tuple[Critique, ...] = ()
    try:
        if critique is None:
            messages = build_critique_messages(prompt, draft)
            limit = settings.critique_max_tokens
            answer = await ask(teacher, messages, limit, settings.max_attempts)
            parsed = parse_critique(draft, answer)
            if isinstance(parsed, Failure):
                return Outcomes(failures=(parsed,))
            critique = parsed
        made = (critique,)
        messages = build_refinement_messages(prompt, draft, critique)
        answer = await ask(teacher, messages, settings.refinement_max_tokens, settings.max_attempts)
    except TeacherError as error:
        if error.stop:
            raise
        stage = "refinements" if made else "critiques"
        failure = Failure(draft.id, stage, error.reason, error.detail, error.permanent)
        return Outcomes(made, (failure,))
    refinement = parse_refinement(critique, answer)
    if isinstance(refinement, Failure):
        return Outcomes(made, (refinement,))
    return Outcomes((critique, refinement))


@dataclass(frozen=True, slots=True)
class TaughtRows:
    """What became of some drafts; `stop` says why those not in `outcomes` were not tried."""

    outcomes: Outcomes
    stop: TeacherError | None


async def teach_all(
    teacher: Teacher,
    rows: Sequence[TeacherRow],
    settings: TeacherSettings,
    gate: asyncio.Semaphore,
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
                return await teach(teacher, row, settings)
            except TeacherError as error:
                stops.append(error)
                return Outcomes()

    made = await asyncio.gather(*(one(row) for row in rows))
    return TaughtRows(sum(made, start=Outcomes()), stops[0] if stops else None)
