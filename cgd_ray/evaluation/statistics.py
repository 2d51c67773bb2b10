"""How sure a figure is: intervals on an accuracy, and two models compared prompt by prompt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution
_MAX_NAMED = 5  # missing prompt ids that an error names


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % confidence interval, as shares between 0 and 1."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A student against its base on the same prompts."""

    mean: float  # accuracy of the student less that of the base, as a share
    low: float  # of the 95 % interval
    high: float
    p: float  # exact McNemar, two-sided
    wins: int  # prompts that only the student got right
    losses: int  # prompts that only the base got right
    num_prompts: int


def accuracy_interval(correct: Sequence[bool]) -> Interval:
    """Return an accuracy with its 95 % Wilson score interval.

    Args:
        correct: one verdict per prompt.

    Raises:
        ValueError: there are no verdicts.

    Source: Wilson, 1927, J. Am. Stat. Assoc. 22.
    """
    n = len(correct)
    if n == 0:
        raise ValueError("no verdicts: an accuracy needs at least one")
    mean = sum(correct) / n
    spread = _Z_95 / (1 + _Z_95**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z_95**2 / (4 * n * n))
    centre = (mean + _Z_95**2 / (2 * n)) / (1 + _Z_95**2 / n)
    return Interval(mean, max(0.0, centre - spread), min(1.0, centre + spread))


def compare_paired(
    base: Mapping[str, bool],
    student: Mapping[str, bool],
    seed: int = 0,
    num_resamples: int = 10_000,
) -> Comparison:
    """Compare two models on the same prompts.

    Args:
        base: verdict by prompt id.
        student: likewise; the same ids, in any order.
        seed: of the bootstrap: the same seed gives the same interval.
        num_resamples: bootstrap samples.

    Returns:
        The difference with its 95 % percentile bootstrap interval over prompts, and the exact
        two-sided McNemar p of wins against losses.

    Raises:
        ValueError: there are no prompts, or the two sets of ids differ; the message names them.
    """
    _check_same_prompts(base, student)
    n = len(base)
    wins = sum(student[key] and not base[key] for key in base)
    losses = sum(base[key] and not student[key] for key in base)
    # Drawing n prompts with replacement draws (wins, losses, ties) from a multinomial.
    shares = [wins / n, losses / n, (n - wins - losses) / n]
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=num_resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    p = _mcnemar(wins, losses)
    return Comparison((wins - losses) / n, float(low), float(high), p, wins, losses, n)


def describe(comparison: Comparison) -> str:
    """Return a comparison in one sentence; "not significant" if the interval includes zero."""
    c = comparison
    sign = "better" if c.mean > 0 else "worse" if c.mean < 0 else "no better or worse"
    figures = (
        f"{c.mean * 100:+.1f} points, 95 % interval {c.low * 100:+.1f} to {c.high * 100:+.1f}, "
        f"p = {c.p:.2g}; {c.wins} won and {c.losses} lost of {c.num_prompts} prompts"
    )
    if c.low <= 0 <= c.high:
        return f"not significant ({figures})"
    return f"significantly {sign} ({figures})"


def _check_same_prompts(base: Mapping[str, bool], student: Mapping[str, bool]) -> None:
    problems = [
        f"{len(missing)} prompt(s) are missing from the {name}: {_some(missing)}"
        for name, missing in (
            ("base", sorted(student.keys() - base.keys())),
            ("student", sorted(base.keys() - student.keys())),
        )
        if missing
    ]
    if problems:
        raise ValueError("; ".join(problems))
    if not base:
        raise ValueError("no prompts to compare")


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
    return ", ".join(ids[:_MAX_NAMED]) + more


def _mcnemar(wins: int, losses: int) -> float:
    """Return the chance of a split at least as uneven, if each prompt is a fair coin."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)
