"""AdamW on float32 master weights, some of them at a time: DeepSpeed's stage 0 in less memory.

DeepSpeed holds all gradients in float32 at once, after it has searched each of them for overflow,
which bfloat16 does not know. Here float32 gradients exist for one part of the weights; the
arithmetic is the same.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from cgd_ray.training.memory import UPDATED_VALUES


def update_in_parts(wrapper: Any) -> None:  # noqa: ANN401 - DeepSpeed's FP16_UnfusedOptimizer
    """Let DeepSpeed's optimiser of 16-bit weights at stage 0 update part by part."""
    wrapper.step = partial(_step, wrapper)


def _step(wrapper: Any) -> bool:  # noqa: ANN401
    """Update all weights; return whether the gradients were not finite and nothing was done."""
    pairs = [
        (weight, master)
        for weights, masters in zip(wrapper.fp16_groups, wrapper.fp32_groups, strict=True)
        for weight, master in zip(weights, masters, strict=True)
    ]
    for weight, _ in pairs:
        if weight.grad is None:  # an expert that no token met: its moments fade as at every stage
            weight.grad = torch.zeros_like(weight)
    norms: Any = torch._foreach_norm(  # pyright: ignore[reportPrivateImportUsage] - one call for all
        [weight.grad for weight, _ in pairs], 2, dtype=torch.float32
    )
    norm = torch.linalg.vector_norm(torch.stack(norms)).item()
    if not math.isfinite(norm):
        return wrapper._skip_invalid_grad_norm()
    wrapper.overflow, wrapper._global_grad_norm = False, norm
    clip = wrapper.clip_grad / (norm + 1e-6) if wrapper.clip_grad else 1.0
    for part in _parts(pairs):
        for weight, master in part:
            assert weight.grad is not None  # set above
            grad = weight.grad.float()
            master.grad = grad.mul_(clip) if clip < 1 else grad
        wrapper.optimizer.step()  # passes over masters without a gradient
        for weight, master in part:
            weight.data.copy_(master.data)
            master.grad = None
    return False


def _parts(
    pairs: list[tuple[torch.Tensor, torch.Tensor]],
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Yield the weights in runs of at most so many values, and at least one weight."""
    part: list[tuple[torch.Tensor, torch.Tensor]] = []
    size = 0
    for pair in pairs:
        if part and size + pair[0].numel() > UPDATED_VALUES:
            yield part
            part, size = [], 0
        part.append(pair)
        size += pair[0].numel()
    if part:
        yield part
