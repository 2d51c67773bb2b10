"""Which packed batches make up which optimiser step: a pure function of seed, epoch and step.

Every epoch takes each row once. The worker count only decides who computes what.
"""

import numpy as np


def steps_per_epoch(num_rows: int, batches_per_step: int) -> int:
    """Return the optimiser steps in one pass over the rows; the last may be short."""
    return -(-num_rows // batches_per_step)


def num_steps(num_rows: int, batches_per_step: int, num_epochs: int, max_steps: int | None) -> int:
    """Return the optimiser steps of a whole training run."""
    steps = steps_per_epoch(num_rows, batches_per_step) * num_epochs
    return steps if max_steps is None else min(steps, max_steps)


def rows_of_step(step: int, num_rows: int, batches_per_step: int, seed: int) -> list[int]:
    """Return the rows of an optimiser step, counted from 0 over all epochs."""
    epoch, place = divmod(step, steps_per_epoch(num_rows, batches_per_step))
    order = np.random.default_rng([seed, epoch]).permutation(num_rows)
    return order[place * batches_per_step : (place + 1) * batches_per_step].tolist()


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
