"""A study as one HTML page that needs nothing but itself, without a script. Pure."""

from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from cgd_ray.report.document import facts, html_document, page_part
from cgd_ray.study.charts import accuracy_chart, loss_curves, swatch
from cgd_ray.study.results import ArmResult, StudyResult, TaskResult
from cgd_ray.study.settings import Match
from cgd_ray.study.table import (
    COST_COLUMNS,
    MATCHED,
    costs_row,
    matched_in_words,
    points,
    share,
    verdict,
)

_COSTS_NOTE = (
    "Means over seeds. Teacher tokens and dollars are of the calls that the objective itself "
    "needs: for distilled_sft the refinement's alone. FLOPs: 6 a parameter and token in training, "
    "2 in drafting; the teacher's are not known. Seconds are of drafting (teacher beside it) and "
    "of optimiser steps, times their workers, as measured here."
)
_STATISTICS = (
    "Intervals are 95 %, over prompts and trainings (t, Satterthwaite; one training: Wilson or "
    "bootstrap over prompts); p adjusted by Holm over the arms of a table. A seed is the order of "
    "the examples."
)
_CURVES_NOTE = (
    "Loss at target tokens, in nats. Arms with other targets or contexts have other losses: a "
    "lower curve is not a better student."
)


def render_page(result: StudyResult) -> str:
    """Return the whole page, to be written as UTF-8 to a file of any name."""
    about = (
        ("Date", result.date),
        ("Student", result.student),
        ("Teacher", result.teacher),
        ("Problems", result.prompts),
        ("Shared chains", _chains(result)),
        ("Trainings", f"{result.num_finished} of {result.num_cells} finished"),
    )
    body = Template(page_part("study.html", "cgd_ray.study")).substitute(
        study=escape(result.study),
        result=escape(" ".join(findings(result))),
        facts=facts(about),
        sections="".join(_match(result, match) for match in result.matches),
        arms=_arms(result),
        again=_again(result),
    )
    style = page_part("page.css") + page_part("study.css", "cgd_ray.study")
    return html_document(f"{result.study}: study", style, body)


def findings(result: StudyResult) -> list[str]:
    """Return a sentence a match about the first task: whom the reference beats, ties, loses to."""
    sentences: list[str] = []
    for match in result.matches:
        found: dict[str, list[str]] = {}
        for arm in result.of(match):
            if contrast := arm.tasks[0].under_reference:
                found.setdefault(verdict(contrast), []).append(arm.arm)
        words = {"wins": "beats", "ties": "ties with", "loses": "loses to"}
        parts = [f"{words[v]} {_listed(found[v])}" for v in words if v in found]
        if parts:
            sentences.append(f"With {MATCHED[match]}, {result.reference} {_listed(parts)}.")
    return sentences or ["No arm can be compared yet."]


def _chains(result: StudyResult) -> str:
    right = result.draft_accuracy
    return f"{result.num_chains}" + ("" if right is None else f", {right:.1%} of the drafts right")


def _match(result: StudyResult, match: Match) -> str:
    arms = result.of(match)
    name = MATCHED[match][:1].upper() + MATCHED[match][1:]
    tasks = "".join(_task(arms, index, result.reference) for index in range(len(arms[0].tasks)))
    legend = "".join(
        f"<span>{swatch(i)}{escape(arm.arm)}</span>" for i, arm in enumerate(arms) if arm.curve
    )
    curves = loss_curves(arms)
    training = (
        f'<h3>Training loss</h3><div class="legend">{legend}</div>{curves}'
        f'<p class="note">{_CURVES_NOTE}</p>'
        if curves
        else ""
    )
    return (
        f'<section id="{match}" aria-labelledby="{match}-name"><h2 id="{match}-name">{name}</h2>'
        f'<p class="lead">{escape(matched_in_words(match, result.reference))}</p>{tasks}'
        f"<h3>Costs of one training</h3>{_costs(arms)}{training}{_commands(arms)}</section>"
    )


def _task(arms: Sequence[ArmResult], index: int, reference: str) -> str:
    tasks = [arm.tasks[index] for arm in arms]
    first = tasks[0]
    title = f"{first.task}: {first.metric}, {first.num_prompts} problems"
    rows = [(arm.arm, task.accuracy) for arm, task in zip(arms, tasks, strict=True)]
    chart = accuracy_chart(rows, title, max(accuracy.high for _, accuracy in rows))
    head = (
        "arm",
        "accuracy (95 % interval)",
        "each seed",
        "over base, points",
        f"{reference} less it, points",
        "p (Holm)",
        reference,
        "tokens an answer",
        "speaks of a draft",
    )
    rows = [_task_row(i, a, t) for i, (a, t) in enumerate(zip(arms, tasks, strict=True))]
    return f"<h3>{escape(title)}</h3>{chart}{_table(head, rows)}"


def _task_row(index: int, arm: ArmResult, task: TaskResult) -> list[str]:
    a, under = task.accuracy, task.under_reference
    said = verdict(under) if under else ""
    return [
        swatch(index) + escape(arm.arm),
        share(a.low, a.mean, a.high),
        ", ".join(f"{100 * value:.1f}" for value in task.by_seed),
        points(task.over_base) if task.over_base else "",
        points(under) if under else "",
        f"{under.p_holm:.2g}" if under else "",
        f'<span class="{said}">{said}</span>' if said else "",
        f"{task.tokens_per_answer:.0f}",
        f"{task.reviser_share:.1%}",
    ]


def _costs(arms: Sequence[ArmResult]) -> str:
    rows = [[escape(a.arm), *map(escape, costs_row(a.costs))] for a in arms if a.costs]
    return _table(("arm", *COST_COLUMNS), rows) + f'<p class="note">{_COSTS_NOTE}</p>'


def _commands(arms: Sequence[ArmResult]) -> str:
    compared = {
        contrast.command
        for arm in arms
        for task in arm.tasks
        for contrast in (task.over_base, task.under_reference)
        if contrast
    }
    lines = [line for arm in arms for line in arm.commands]
    return (
        "<details><summary>The commands that print these figures again</summary>"
        f"<pre># accuracies, a training each\n{escape(chr(10).join(lines))}\n\n"
        f"# differences\n{escape(chr(10).join(sorted(compared)))}</pre></details>"
    )


def _arms(result: StudyResult) -> str:
    known = {arm.arm: arm.what for arm in result.arms}
    rows = [[escape(name), f'<span class="what">{escape(w)}</span>'] for name, w in known.items()]
    failed = [[escape(cell.label), escape(cell.reason)] for cell in result.failed]
    more = f"<h3>Failed</h3>{_table(('training', 'reason'), failed)}" if failed else ""
    return _table(("arm", "trained on"), rows) + more


def _again(result: StudyResult) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return (
        f"<pre>{escape(result.command)}</pre>"
        f'<p class="note">{escape(result.hardware)}. {escape(versions)}. {_STATISTICS}</p>'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already; the head is text."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="wide"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
