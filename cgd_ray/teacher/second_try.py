"""A critique that gives the answer away is asked for once more; what still leaks is rejected later.

Apart from the chain, which does without a grader.
"""

import asyncio
from dataclasses import replace

from cgd_ray.audit.leakage import Criticised, find_leaks
from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.records import Critique, Draft, Failure, Prompt
from cgd_ray.teacher.again import TEMPLATE, build_again_messages
from cgd_ray.teacher.asking import Asker
from cgd_ray.teacher.critique import parse_critique


class SecondTry:
    """Looks at critiques, and asks again for those that leak; to be closed."""

    def __init__(self) -> None:
        self._pool = GraderPool(1)
        self._lock = asyncio.Lock()

    async def mended(
        self, teacher: Asker, prompt: Prompt, draft: Draft, critique: Critique, max_tokens: int
    ) -> Critique:
        """Return the critique, or the second one if the first leaks and there is a second.

        Args:
            teacher: is asked.
            prompt: without a reference there is nothing to look for.
            draft: that is criticised.
            critique: the first.
            max_tokens: of a critique.

        Raises:
            TeacherError: as the teacher's.
        """
        if not await self._leaks(prompt, draft, critique):
            return critique
        messages = build_again_messages(prompt, draft, critique)
        second = parse_critique(draft, await teacher.ask(messages, max_tokens, TEMPLATE))
        if isinstance(second, Failure):
            return critique
        return replace(
            second,
            template=f"{critique.template} {TEMPLATE}",
            num_input_tokens=critique.num_input_tokens + second.num_input_tokens,
            num_cached_tokens=critique.num_cached_tokens + second.num_cached_tokens,
            num_output_tokens=critique.num_output_tokens + second.num_output_tokens,
        )

    def close(self) -> None:
        """End the grader's processes."""
        self._pool.__exit__(None, None, None)

    async def _leaks(self, prompt: Prompt, draft: Draft, critique: Critique) -> bool:
        if not (prompt.reference or "").strip():
            return False
        row = Criticised(prompt.reference or "", prompt.text, draft.text, critique.text)
        async with self._lock:  # one grader, and the loop goes on
            (leak,) = await asyncio.to_thread(find_leaks, [row], self._pool.grade_all)
        return leak.new
