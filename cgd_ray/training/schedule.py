"""The learning rate of each step."""

import math


def learning_rate(step: int, num_steps: int, peak: float, warmup_ratio: float) -> float:
    """Return the rate for an optimiser step, counted from 0: linear warm-up, then a cosine to 0."""
    num_warmup = round(num_steps * warmup_ratio)
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
