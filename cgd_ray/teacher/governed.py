"""Asking a teacher within the limits of the whole run."""

import asyncio
import random

from cgd_ray.prompts.messages import Message
from cgd_ray.teacher.asking import Teacher
from cgd_ray.teacher.completion import Completion, TeacherError
from cgd_ray.teacher.permits import Permits
from cgd_ray.teacher.prices import estimate_input_tokens, worst_usd
from cgd_ray.teacher.retry import backoff_s


async def governed_ask(
    teacher: Teacher,
    permits: Permits,
    messages: list[Message],
    max_tokens: int,
    max_attempts: int,
) -> Completion:
    """Call until there is an answer, the error is final or the attempts are spent.

    Every attempt waits for a permit. Where the server says "too many" or when to come back, that is
    no attempt: the governor lets nobody call before, and bounds the retries of the whole run.

    Raises:
        TeacherError: the last error, or why the governor stopped the run.
    """
    draw = random.Random()
    worst = worst_usd(permits.price, messages, max_tokens) if permits.price else 0.0
    tokens = estimate_input_tokens(messages) + max_tokens
    attempt = refused = 0
    while True:
        async with permits.call(tokens, worst) as call:
            try:
                answer = await teacher.complete(messages, max_tokens)
            except TeacherError as error:
                told_to_wait = error.reason == "rate_limited" or error.retry_after_s is not None
                refused, attempt = refused + told_to_wait, attempt + (not told_to_wait)
                again = not (error.permanent or error.stop or attempt >= max_attempts)
                call.failed(error, retried=again)
                if not again:
                    raise
                # The governor keeps a server's own pause for everyone.
                paused = error.retry_after_s is not None
            else:
                call.finished(answer)
                return answer
        if not paused:
            await asyncio.sleep(backoff_s(attempt + refused, None, draw))
