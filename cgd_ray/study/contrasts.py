"""Verdicts of arms -> accuracies and paired differences, with intervals. Pure."""

from collections.abc import Mapping, Sequence

from cgd_ray.evaluation.paired import Comparison, compare_runs, compare_seeds
from cgd_ray.evaluation.statistics import Verdicts, holm, mean_interval
from cgd_ray.study.results import Contrast, Estimate

Runs = Sequence[Verdicts]  # one a training


def estimate(runs: Runs) -> Estimate:
    """Return an arm's accuracy with its interval: over prompts, and over trainings if several.

    Args:
        runs: verdicts of at least one training.
    """
    if len(runs) == 1:
        interval = mean_interval(runs[0])
        return Estimate(interval.mean, interval.low, interval.high)
    # Against a model that is never right, the difference is the accuracy.
    never = {prompt_id: [False] for prompt_id in runs[0]}
    found = compare_seeds([never], runs)
    return Estimate(found.mean, max(0.0, found.low), min(1.0, found.high))


def contrasts(
    first: Mapping[str, Runs], second: Mapping[str, Runs], commands: Mapping[str, str]
) -> dict[str, Contrast]:
    """Return second less first for each name, p adjusted for how many there are.

    Args:
        first: runs by name.
        second: runs by the same names.
        commands: that print each again.
    """
    found = {name: compare_runs(first[name], second[name]) for name in first}
    adjusted = dict(zip(found, holm([c.p for c in found.values()]), strict=True))
    return {name: _contrast(c, adjusted[name], commands[name]) for name, c in found.items()}


def _contrast(c: Comparison, p_holm: float, command: str) -> Contrast:
    return Contrast(c.mean, c.low, c.high, c.p, p_holm, c.wins, c.losses, command)
