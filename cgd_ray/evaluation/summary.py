"""Scores -> what is said of them: accuracy, pass@k, paired differences, drift, and a table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cgd_ray.evaluation.drift import audit
from cgd_ray.evaluation.methods import ONE_PASS
from cgd_ray.evaluation.paired import Comparison, compare_paired, describe
from cgd_ray.evaluation.setup import Setup
from cgd_ray.evaluation.statistics import Verdicts, holm, mean_interval, mean_pass_at
from cgd_ray.records import Score

BASE, STUDENT = "base", "student"
Figures = dict[str, Any]


def summarise(
    setups: Sequence[Setup], scores: Iterable[Score], seed: int, num_resamples: int
) -> Figures:
    """Return what an evaluation found.

    Args:
        setups: of every task and method, the most important first.
        scores: of base and student under them, complete.
        seed: of the bootstrap.
        num_resamples: bootstrap samples.

    Returns:
        `base`, `student`, `difference` and `in_words` of the first setup, and `tasks`: the same of
        each with its setup and, for one pass, drift. Differences of one pass are adjusted for being
        several (`p_holm`).
    """
    by_setup: defaultdict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_setup[score.setup].append(score)
    found = [_task(setup, by_setup[setup.id], seed, num_resamples) for setup in setups]
    compared = [
        compare_paired(
            verdicts_of(by_setup[s.id], BASE),
            verdicts_of(by_setup[s.id], STUDENT),
            seed,
            num_resamples,
        )
        for s in setups
    ]
    for figures, comparison, adjusted in zip(
        found, compared, _adjusted(setups, compared), strict=True
    ):
        figures["difference"] = {
            name: value
            for name, value in asdict(comparison).items()
            if name not in ("num_prompts", "num_seeds")
        }
        if adjusted is not None:
            figures["difference"]["p_holm"] = adjusted
        figures["in_words"] = describe(comparison, adjusted)
    first = {name: found[0][name] for name in (BASE, STUDENT, "difference", "in_words")}
    return {**first, "tasks": found}


def verdicts_of(scores: Iterable[Score], model: str) -> Verdicts:
    """Return a model's verdicts by problem, in order of their samples."""
    verdicts: defaultdict[str, list[bool]] = defaultdict(list)
    for score in sorted(scores, key=lambda s: s.sample):
        if score.model == model:
            verdicts[score.prompt_id].append(score.correct)
    return dict(verdicts)


def model_figures(scores: Sequence[Score], model: str, seed: int, num_resamples: int) -> Figures:
    """Return one model's accuracy, its interval and what its answers cost.

    Args:
        scores: of one setup.
        model: whose.
        seed: of the bootstrap.
        num_resamples: bootstrap samples.
    """
    own = [score for score in scores if score.model == model]
    verdicts = verdicts_of(own, model)
    interval = mean_interval(verdicts, seed, num_resamples)
    figures: Figures = {
        "accuracy": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "num_prompts": len(verdicts),
        "tokens_per_answer": sum(s.num_tokens for s in own) / len(own),
        "cut_share": sum(s.finish_reason == "length" for s in own) / len(own),
    }
    if teacher_tokens := sum(s.num_teacher_tokens for s in own):
        figures["teacher_tokens_per_answer"] = teacher_tokens / len(own)
    if len(own) > len(verdicts):
        figures["pass_at"] = {str(k): value for k, value in mean_pass_at(verdicts).items()}
    return figures


def task_lines(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of tasks and methods: accuracy of both models, tokens, and the difference."""
    width = max((len(f"{t['task']} {t['method']}") for t in tasks), default=0)
    return [
        f"{t['task'] + ' ' + t['method']:<{width}}  "
        + "  ".join(
            f"{model} {t[model]['accuracy']:.1%} ({t[model]['tokens_per_answer']:.0f} tokens)"
            for model in (BASE, STUDENT)
        )
        + f"  {t['in_words']}"
        for t in tasks
    ]


def _task(setup: Setup, scores: Sequence[Score], seed: int, num_resamples: int) -> Figures:
    figures: Figures = {name: value for name, value in asdict(setup).items() if name != "id"}
    figures["setup"] = setup.id
    for model in (BASE, STUDENT):
        figures[model] = model_figures(scores, model, seed, num_resamples)
    if setup.method == ONE_PASS:
        figures["drift"] = _drift(scores)
    return figures


def _drift(scores: Iterable[Score]) -> Figures:
    ordered = sorted(scores, key=lambda s: (s.prompt_id, s.sample))
    base, student = ([s for s in ordered if s.model == model] for model in (BASE, STUDENT))
    tokens = [sum(s.num_tokens for s in side) for side in (student, base)]
    return asdict(audit([s.response for s in student], [s.response for s in base], *tokens))


def _adjusted(setups: Sequence[Setup], compared: Sequence[Comparison]) -> list[float | None]:
    """Return Holm's p of each one-pass comparison if there are several; None for the others."""
    places = [i for i, setup in enumerate(setups) if setup.method == ONE_PASS]
    adjusted: list[float | None] = [None] * len(setups)
    if len(places) > 1:
        for place, p in zip(places, holm([compared[i].p for i in places]), strict=True):
            adjusted[place] = p
    return adjusted
