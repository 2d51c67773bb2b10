"""A study as tables for a terminal of 100 columns. Pure."""

from collections.abc import Sequence

from cgd_ray.study.results import ArmResult, Contrast, Costs, StudyResult, TaskResult
from cgd_ray.study.settings import Match

MATCHED = {
    "examples": "the same examples",
    "steps": "the same optimiser steps",
    "train_tokens": "the same training tokens",
    "teacher_tokens": "the same teacher tokens",
    "usd": "the same dollars for the teacher",
}
_VERDICTS = {1: "wins", 0: "ties", -1: "loses"}


def table(result: StudyResult) -> str:
    """Return every match's accuracies, differences from the reference, and costs."""
    lines = [
        f"{result.study}: {result.num_finished} of {result.num_cells} cells, "
        f"{result.num_chains} shared chains of {result.prompts}",
        "95 % intervals over prompts and trainings; p adjusted for all arms of a table (Holm)",
    ]
    for match in result.matches:
        arms = result.of(match)
        for index, first in enumerate(arms[0].tasks):
            lines += ["", f"{MATCHED[match]}: {first.task}, {first.metric}"]
            lines += _accuracies([arm.tasks[index] for arm in arms], arms, result.reference)
        lines += ["", f"{MATCHED[match]}: costs of one training", *_costs(arms)]
    lines += [f"failed: {cell.label}: {cell.reason}" for cell in result.failed]
    return "\n".join(lines)


def markdown(result: StudyResult) -> str:
    """Return the accuracies as one Markdown table for documents: an arm a row, in percent."""
    columns: list[tuple[Match, int]] = [
        (match, index)
        for match in result.matches
        for index in range(min(2, len(result.of(match)[0].tasks)))
    ]
    named = [f"{MATCHED[m]}: {'problems' if i == 0 else 'format'}" for m, i in columns]
    lines = [f"| arm | {' | '.join(named)} |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(arm.arm for arm in result.arms):
        cells = [f"`{name}`"]
        for match, index in columns:
            found = [arm.tasks[index] for arm in result.of(match) if arm.arm == name]
            cells.append(_cell(found[0], result.reference) if found else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(task: TaskResult, reference: str) -> str:
    a, under = task.accuracy, task.under_reference
    said = f"; {reference} {verdict(under)}" if under else ""
    return f"{100 * a.mean:.1f} ({100 * a.low:.1f} to {100 * a.high:.1f}){said}"


def verdict(contrast: Contrast) -> str:
    """Return whether the reference wins, ties or loses against an arm."""
    return _VERDICTS[0 if not contrast.significant else 1 if contrast.mean > 0 else -1]


def points(contrast: Contrast) -> str:
    """Return a difference in percentage points with its interval."""
    low, high = 100 * contrast.low, 100 * contrast.high
    return f"{100 * contrast.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def share(low: float, mean: float, high: float) -> str:
    """Return a share in percent with its interval."""
    return f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def costs_row(costs: Costs | None) -> tuple[str, ...]:
    """Return an arm's costs as a table shows them, as `COST_COLUMNS` names them."""
    if costs is None:
        return ("-",) * len(COST_COLUMNS)
    return (
        f"{costs.examples:,.0f}",
        f"{costs.steps:,.0f}",
        f"{costs.train_tokens:,.0f}",
        f"{costs.teacher_tokens:,.0f}",
        "unknown" if costs.usd is None else f"{costs.usd:.2f}",
        _flops(costs.drafting_flops),
        _flops(costs.training_flops),
        f"{costs.drafting_worker_s:,.0f}",
        f"{costs.training_worker_s:,.0f}",
    )


COST_COLUMNS = (
    "examples",
    "steps",
    "tokens",
    "teacher tokens",
    "USD",
    "draft FLOPs",
    "train FLOPs",
    "draft s",
    "train s",
)


def matched_in_words(match: Match, reference: str) -> str:
    """Return what a match means, as a sentence."""
    return f"Every arm has {MATCHED[match]} as {reference}."


def _flops(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"


def _accuracies(
    tasks: Sequence[TaskResult], arms: Sequence[ArmResult], reference: str
) -> list[str]:
    width = max(len(arm.arm) for arm in arms)
    head = f"{'arm':<{width}}  {'accuracy':<24}  {'over base, points':<24}  {reference} less it"
    lines = [head]
    for arm, task in zip(arms, tasks, strict=True):
        a = task.accuracy
        over = points(task.over_base) if task.over_base else ""
        under = task.under_reference
        said = f"{points(under)}, p = {under.p_holm:.2g}: {verdict(under)}" if under else ""
        row = f"{arm.arm:<{width}}  {share(a.low, a.mean, a.high):<24}  {over:<24}  {said}"
        lines.append(row.rstrip())
    return lines


def _costs(arms: Sequence[ArmResult]) -> list[str]:
    rows = [("arm", *COST_COLUMNS)]
    rows += [(arm.arm, *costs_row(arm.costs)) for arm in arms if arm.costs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
