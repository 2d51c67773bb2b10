"""Which packed batches make up which optimiser step: a pure function of seed, epoch and step.

Every epoch takes each row once. The worker count only decides who computes what.

Rows are stored `SHARD_ROWS` to a file. An epoch takes the files in random order, a window of them
at a time, and the rows of a window in random order: a machine needs room for one window, and
fetches each file once an epoch.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cgd_ray.examples.packing import SHARD_ROWS

IntArray = NDArray[np.int64]


def steps_per_epoch(num_rows: int, batches_per_step: int) -> int:
    """Return the optimiser steps in one pass over the rows; the last may be short."""
    return -(-num_rows // batches_per_step)


def num_steps(num_rows: int, batches_per_step: int, num_epochs: int, max_steps: int | None) -> int:
    """Return the optimiser steps of a whole training run."""
    steps = steps_per_epoch(num_rows, batches_per_step) * num_epochs
    return steps if max_steps is None else min(steps, max_steps)


def rows_of_step(
    step: int,
    num_rows: int,
    batches_per_step: int,
    seed: int,
    window_rows: int | None = None,
) -> list[int]:
    """Return the rows of an optimiser step, counted from 0 over all epochs.

    Args:
        step: from 0, over all epochs.
        num_rows: in the data set.
        batches_per_step: rows in a step; the last of an epoch may have fewer.
        seed: of the run.
        window_rows: rows that are shuffled together; None: all.
    """
    epoch, place = divmod(step, steps_per_epoch(num_rows, batches_per_step))
    order = _epoch_order(num_rows, seed, epoch, window_rows)
    return order[place * batches_per_step : (place + 1) * batches_per_step].tolist()


@lru_cache(maxsize=2)
def _epoch_order(num_rows: int, seed: int, epoch: int, window_rows: int | None) -> IntArray:
    """Return all rows in the order of an epoch; treat the array as read-only."""
    draw = np.random.default_rng([seed, epoch])
    if window_rows is None or num_rows <= window_rows:
        return draw.permutation(num_rows)
    shards: list[IntArray] = [
        np.arange(s, min(s + SHARD_ROWS, num_rows)) for s in range(0, num_rows, SHARD_ROWS)
    ]
    order: list[int] = draw.permutation(len(shards)).tolist()
    in_window = max(1, window_rows // SHARD_ROWS)
    windows = [order[start : start + in_window] for start in range(0, len(order), in_window)]
    parts: list[IntArray] = [
        draw.permutation(np.concatenate([shards[s] for s in window])) for window in windows
    ]
    return np.concatenate(parts)


def planned_rows(
    steps: range,
    num_rows: int,
    batches_per_step: int,
    seed: int,
    window_rows: int | None,
    rank: int,
    num_workers: int,
) -> Iterator[int]:
    """Yield the rows that a worker computes in these steps; an empty place takes a row of the step.

    The arguments are those of `rows_of_step` and `rows_of_worker`.
    """
    for step in steps:
        rows = rows_of_step(step, num_rows, batches_per_step, seed, window_rows)
        for row in rows_of_worker(rows, rank, num_workers, batches_per_step):
            yield rows[0] if row is None else row


def rows_of_worker(
    rows: list[int], rank: int, num_workers: int, batches_per_step: int
) -> list[int | None]:
    """Return one worker's share of a step: always `batches_a_worker` places.

    A short last step, or a number of workers that does not divide the step, leaves places empty
    (None): a worker computes a batch of no weight there, because all workers must take part in
    every exchange.
    """
    num_places = batches_a_worker(batches_per_step, num_workers) * num_workers
    places: list[int | None] = [*rows, *[None] * (num_places - len(rows))]
    return places[rank::num_workers]


def batches_a_worker(batches_per_step: int, num_workers: int) -> int:
    """Return the packed batches that each worker computes in a step: gradient accumulation."""
    return -(-batches_per_step // num_workers)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return what a worker's random numbers of a step follow from, dropout for one."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
