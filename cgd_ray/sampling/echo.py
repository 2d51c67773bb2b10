"""An engine that answers with the prompt: the plumbing, the pool and its faults without a model."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cgd_ray.sampling.answers import ANSWERS, row_ids, with_answers
from cgd_ray.sampling.attempts import AttemptRecord, Attempts
from cgd_ray.sampling.guard import Chunk


@dataclass(frozen=True, slots=True)
class EchoFaults:
    """How an echo engine is slow, and what it dies of."""

    delay_s: float = 0.0  # for each call of the engine
    poison_prompt_ids: frozenset[str] = frozenset()  # a row of these ends the process


class EchoEngine:
    """Answers every prompt with its own token ids."""

    def __init__(self, record: AttemptRecord, faults: EchoFaults) -> None:
        self._attempts = Attempts(record)
        self._faults = faults

    async def __call__(self, rows: pa.Table) -> AsyncIterator[pa.Table]:
        """Yield the rows with their answers."""

        async def answer(chunk: Chunk) -> pa.Table:
            return await self._answer(rows.slice(chunk.start, chunk.num_rows))

        yield with_answers(rows, await self._attempts.run(row_ids(rows), answer))

    async def _answer(self, rows: pa.Table) -> pa.Table:
        await asyncio.sleep(self._faults.delay_s)
        if self._faults.poison_prompt_ids.intersection(rows["prompt_id"].to_pylist()):
            os._exit(1)
        return echo(rows)


def echo(rows: pa.Table) -> pa.Table:
    """Return the answers to rows with `tokenized_prompt`."""
    tokens = rows["tokenized_prompt"]
    words = tokens.cast(pa.list_(pa.string()))
    text = pc.call_function("binary_join", [words, " "])
    num_tokens = pc.call_function("list_value_length", [tokens]).cast(pa.int64())
    return pa.table([text, num_tokens, pa.nulls(len(rows), pa.string()).fill_null("")], ANSWERS)
