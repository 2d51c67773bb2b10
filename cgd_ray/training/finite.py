"""Training stops at the first loss or gradient that is not a number."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist

from cgd_ray.errors import UserError

_MOST_IDS = 20


def require_finite(
    step: int,
    loss: float,
    grad_norm: float,
    row_losses: Mapping[int, torch.Tensor],
    example_ids: Callable[[int], Sequence[str]],
) -> None:
    """Stop all workers together if the step's loss or gradient is not finite.

    The figures are the step's, the same on every worker, so all come to the same answer without
    asking each other. Nothing is saved of such a step.

    Args:
        step: from 1.
        loss: mean over the step's targets, nats.
        grad_norm: before clipping.
        row_losses: this worker's losses in the step, by packed batch.
        example_ids: the ids of a packed batch's examples.

    Raises:
        UserError: names the step, the packed batches and their examples.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    # With a finite loss the gradient went wrong, and any of the step's batches may be the cause.
    mine = [r for r, value in row_losses.items() if math.isfinite(loss) or not value.isfinite()]
    everyone: list[list[int]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, mine)
    rows = sorted({row for part in everyone for row in part})
    ids = [name for row in rows for name in example_ids(row)]
    more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
    raise UserError(
        f"the loss of step {step} is {loss:g}, its gradient's norm {grad_norm:g}, of packed "
        f"batches {', '.join(map(str, rows))} (examples {', '.join(ids[:_MOST_IDS])}{more}): "
        "look at these examples, or lower train.learning_rate or train.max_grad_norm; the last "
        "saved state is from before"
    )
