"""Two models compared problem by problem, from one training run each or from several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cgd_ray.evaluation.statistics import Verdicts, resampled_means

_MAX_NAMED = 5  # missing prompt ids that an error names
_SIGN_FLIPS = 20_000
_LEVEL = 0.05
# Both found by simulation, where intervals then hold the truth 94 to 97 % of the time.
_FLOOR = 0.6  # least variance of a difference, as a share of that over prompts
_SURE = 0.1  # share of what prompts explain of the runs' variance that is taken as known


@dataclass(frozen=True, slots=True)
class Comparison:
    """A student against its base on the same prompts."""

    mean: float  # accuracy of the student less that of the base, as a share
    low: float  # of the 95 % interval
    high: float
    p: float  # two-sided
    wins: int  # prompts that the student got right more often
    losses: int  # prompts that the base got right more often
    num_prompts: int
    num_seeds: tuple[int, int] = (1, 1)  # training runs of base and student


def compare_paired(
    base: Verdicts, student: Verdicts, seed: int = 0, num_resamples: int = 10_000
) -> Comparison:
    """Compare two models on the same prompts.

    Args:
        base: verdicts by prompt id.
        student: likewise; the same ids, in any order.
        seed: of the bootstrap: the same seed gives the same interval.
        num_resamples: bootstrap samples.

    Returns:
        The difference with its 95 % percentile bootstrap interval over prompts. p is McNemar's,
        exact, where each prompt has one answer of each model; else that of flipping the signs of
        the prompts' mean differences.

    Raises:
        ValueError: there are no prompts, or the two sets of ids differ; the message names them.
    """
    check_same_prompts({"base": base, "student": student})
    differences = [_mean(student[key]) - _mean(base[key]) for key in base]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    low, high = np.quantile(resampled_means(differences, seed, num_resamples), [0.025, 0.975])
    single = all(len(base[key]) == len(student[key]) == 1 for key in base)
    p = _mcnemar(wins, losses) if single else _sign_flip_p(differences, seed)
    n = len(differences)
    mean = (wins - losses) / n if single else sum(differences) / n
    return Comparison(mean, float(low), float(high), p, wins, losses, n)


def compare_seeds(base: Sequence[Verdicts], student: Sequence[Verdicts]) -> Comparison:
    """Compare two recipes, each trained several times, on the same prompts.

    Runs and prompts are both drawn at random: the variance of the difference is that over prompts
    plus, for each side with several runs, that over its runs; what both count (the interaction)
    is taken off once. t interval with Satterthwaite's degrees of freedom, in which the runs of both
    sides are pooled.

    Args:
        base: verdicts by prompt id of each of its training runs.
        student: likewise.

    Returns:
        The difference, its 95 % interval and two-sided p. A side with a single run is taken as it
        is: the interval then says nothing about training it again.

    Raises:
        ValueError: a side has no run, or two runs have different prompts.
    """
    if not base or not student:
        raise ValueError("no training runs to compare")
    named = {f"base run {i}": run for i, run in enumerate(base, 1)}
    check_same_prompts(named | {f"student run {i}": run for i, run in enumerate(student, 1)})
    ids = sorted(base[0])
    sides_SP = [
        np.array([[_mean(run[i]) for i in ids] for run in runs]) for runs in (base, student)
    ]
    differences_P = sides_SP[1].mean(0) - sides_SP[0].mean(0)
    n = len(ids)
    over_prompts = float(differences_P.var(ddof=1)) / n if n > 1 else 0.0
    over_runs, shared = (sum(parts) for parts in zip(*map(_over_runs, sides_SP), strict=True))
    # Few runs tell little of how runs vary: a floor keeps a lucky draw from a narrow interval.
    variance = max(over_prompts + over_runs - shared, _FLOOR * over_prompts)
    unsure = max(0.0, over_runs - _SURE * shared)
    spread = over_prompts**2 / max(1, n - 1) + unsure**2 / max(1, sum(map(len, sides_SP)) - 2)
    mean = float(differences_P.mean())
    wins, losses = int((differences_P > 0).sum()), int((differences_P < 0).sum())
    half, p = 0.0, _mcnemar(wins, losses)
    if variance > 0:
        error, freedom = math.sqrt(variance), min(variance**2 / spread, n - 1)
        half, p = error * _t_quantile(freedom), _t_p(mean / error, freedom)
    counts = (len(base), len(student))
    low, high = max(-1.0, mean - half), min(1.0, mean + half)  # no difference is larger
    return Comparison(mean, low, high, p, wins, losses, n, counts)


def compare_runs(
    base: Sequence[Verdicts], student: Sequence[Verdicts], seed: int = 0
) -> Comparison:
    """Compare two sides as what they are: one training each, or several.

    Args:
        base: verdicts by prompt id of each of its training runs.
        student: likewise.
        seed: of the bootstrap, which is used where each side has one.

    Raises:
        ValueError: as `compare_paired` and `compare_seeds`.
    """
    if len(base) == len(student) == 1:
        return compare_paired(base[0], student[0], seed)
    return compare_seeds(base, student)


def describe(comparison: Comparison, adjusted_p: float | None = None) -> str:
    """Return a comparison in one sentence, which says whether the difference is significant.

    Args:
        comparison: what was found.
        adjusted_p: p among several comparisons, which then decides together with the interval.
    """
    c = comparison
    sign = "better" if c.mean > 0 else "worse" if c.mean < 0 else "no better or worse"
    adjusted = "" if adjusted_p is None else f", {adjusted_p:.2g} by Holm"
    figures = (
        f"{c.mean * 100:+.1f} points, 95 % interval {c.low * 100:+.1f} to {c.high * 100:+.1f}, "
        f"p = {c.p:.2g}{adjusted}; {c.wins} won and {c.losses} lost of {c.num_prompts} prompts"
    )
    if not is_significant(c, adjusted_p):
        return f"not significant ({figures})"
    return f"significantly {sign} ({figures})"


def is_significant(comparison: Comparison, adjusted_p: float | None = None) -> bool:
    """Return whether the interval leaves zero out and p, adjusted if it was, is below 5 %."""
    by_chance = comparison.low <= 0 <= comparison.high
    # Both: where all prompts agree the bootstrap has no width, however few they are.
    return not by_chance and max(comparison.p, adjusted_p or 0.0) < _LEVEL


def check_same_prompts(runs: Mapping[str, Verdicts]) -> None:
    """Refuse to compare what was not asked the same.

    Args:
        runs: verdicts by the name that messages use.

    Raises:
        ValueError: a run lacks prompts that another has, or there are no prompts.
    """
    everything = {key for run in runs.values() for key in run}
    problems = [
        f"{len(missing)} prompt(s) are missing from the {name}: {_some(missing)}"
        for name, run in runs.items()
        if (missing := sorted(everything - run.keys()))
    ]
    if problems:
        raise ValueError("; ".join(problems))
    if not everything:
        raise ValueError("no prompts to compare")


def _mean(verdicts: Sequence[bool]) -> float:
    return sum(verdicts) / len(verdicts)


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
    return ", ".join(ids[:_MAX_NAMED]) + more


def _mcnemar(wins: int, losses: int) -> float:
    """Return the chance of a split at least as uneven, if each prompt is a fair coin."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def _sign_flip_p(differences: Sequence[float], seed: int) -> float:
    """Return the chance of a sum at least as far from zero, if each sign is a fair coin."""
    sizes, counts = np.unique(np.round(np.abs(differences), 12), return_counts=True)
    rng = np.random.default_rng(seed)
    positive = rng.binomial(counts, 0.5, size=(_SIGN_FLIPS, len(counts)))
    sums = np.abs((2 * positive - counts) @ sizes)
    as_far = np.count_nonzero(sums >= abs(sum(differences)) - 1e-9)
    return (1 + int(as_far)) / (1 + _SIGN_FLIPS)


def _over_runs(accuracies_SP: np.ndarray) -> tuple[float, float]:
    """Return the variance of a side's mean as its runs show it, and what of that prompts explain.

    Args:
        accuracies_SP: of S runs on P prompts.
    """
    num_runs, n = accuracies_SP.shape
    if num_runs == 1 or n == 1:
        return 0.0, 0.0
    run_means_S1 = accuracies_SP.mean(1, keepdims=True)
    rest_SP = accuracies_SP - run_means_S1 - accuracies_SP.mean(0) + accuracies_SP.mean()
    rest = float((rest_SP**2).sum()) / ((num_runs - 1) * (n - 1) * num_runs * n)
    return float(run_means_S1.var(ddof=1)) / num_runs, rest


def _t_p(t: float, freedom: float) -> float:
    """Return the two-sided p of Student's t."""
    import mpmath  # half a second, and only comparisons of several runs need it

    x = freedom / (freedom + t * t)
    return float(mpmath.betainc(freedom / 2, 0.5, 0, x, regularized=True))


def _t_quantile(freedom: float) -> float:
    """Return the t with a two-sided p of 5 %, by bisection."""
    low, high = 0.0, 1e3
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_p(middle, freedom) > _LEVEL else (low, middle)
    return (low + high) / 2
