"""How sure a figure is: intervals over problems, pass@k, and many tests at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_Z_95 = 1.959963984540054  # 97.5th percentile of the normal distribution

Verdicts = Mapping[str, Sequence[bool]]  # by problem id: one verdict for each sampled answer


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % confidence interval, as shares between 0 and 1."""

    mean: float
    low: float
    high: float


def accuracy_interval(correct: Sequence[bool]) -> Interval:
    """Return an accuracy with its 95 % Wilson score interval.

    Args:
        correct: one verdict per prompt.

    Raises:
        ValueError: there are no verdicts.

    Source: Wilson, 1927, J. Am. Stat. Assoc. 22.
    """
    if not correct:
        raise ValueError("no verdicts: an accuracy needs at least one")
    return _wilson(sum(correct) / len(correct), len(correct))


def mean_interval(verdicts: Verdicts, seed: int = 0, num_resamples: int = 10_000) -> Interval:
    """Return avg@n, the accuracy over all answers, with its 95 % interval over problems.

    Answers to one problem are alike, so problems are what is resampled (cluster bootstrap,
    percentiles). With one answer a problem, or problems that are all right or all wrong, Wilson's
    interval for as many problems is given: a bootstrap of equal values has no width.

    Args:
        verdicts: at least one for each problem.
        seed: of the bootstrap.
        num_resamples: bootstrap samples.

    Raises:
        ValueError: there are no verdicts.
    """
    if not verdicts or not all(verdicts.values()):
        raise ValueError("no verdicts: an accuracy needs at least one for each problem")
    means = [sum(v) / len(v) for v in verdicts.values()]
    mean = sum(means) / len(means)
    if all(len(v) == 1 for v in verdicts.values()) or mean in (0.0, 1.0):
        return _wilson(mean, len(means))
    low, high = np.quantile(resampled_means(means, seed, num_resamples), [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def resampled_means(values: Sequence[float], seed: int, num_resamples: int) -> np.ndarray:
    """Return the means of bootstrap samples of some values, one value a problem.

    Args:
        values: P of them, few of them different.
        seed: the same one gives the same samples.
        num_resamples: R.

    Returns:
        R means.
    """
    different, counts = np.unique(np.round(values, 12), return_counts=True)
    # Drawing P problems with replacement draws how often each value comes from a multinomial.
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), counts / counts.sum(), size=num_resamples)
    return drawn @ different / len(values)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate that one of k answers to a problem is right.

    Args:
        num_samples: n answers that were drawn.
        num_correct: c right ones of them.
        k: at most n.

    Raises:
        ValueError: the numbers do not fit together.

    Source: Chen et al., 2021, arXiv 2107.03374: 1 - C(n - c, k) / C(n, k).
    """
    if not 0 <= num_correct <= num_samples or not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} of {num_correct} right in {num_samples} answers")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def mean_pass_at(verdicts: Verdicts) -> dict[int, float]:
    """Return pass@k averaged over problems, for k = 1, 2, 4, ... and the number of answers.

    Raises:
        ValueError: problems have different numbers of answers, or there are none.
    """
    sizes = {len(v) for v in verdicts.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"pass@k needs as many answers to each problem, not {sorted(sizes)}")
    (n,) = sizes
    ks = sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})
    return {k: sum(pass_at_k(n, sum(v), k) for v in verdicts.values()) / len(verdicts) for k in ks}


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several, in order.

    Source: Holm, 1979, Scand. J. Stat. 6: the i-th smallest of m counts m - i + 1 times.
    """
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _wilson(mean: float, n: int) -> Interval:
    spread = _Z_95 / (1 + _Z_95**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z_95**2 / (4 * n * n))
    centre = (mean + _Z_95**2 / (2 * n)) / (1 + _Z_95**2 / n)
    return Interval(mean, max(0.0, centre - spread), min(1.0, centre + spread))
