"""The sections of the report page, each from its part of the data."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from cgd_ray.report import charts, curves
from cgd_ray.report.data import (
    AnswerRow,
    Evaluation,
    FunnelStep,
    LossPoint,
    SampleRow,
    TaskLine,
    verdict,
)
from cgd_ray.report.words import duration, plural, probability, scientific


def _missing(sentence: str) -> str:
    return f'<p class="missing">{escape(sentence)}</p>'


def funnel(steps: Sequence[FunnelStep]) -> str:
    """Return the table of steps with what each lost, and the sum that must come out."""
    if not steps:
        return _missing("No counts were recorded for this run.")
    total = steps[0].num_accounted
    failed, rejected = sum(s.num_failed for s in steps), sum(s.num_rejected for s in steps)
    entering = [total, *(step.count for step in steps)]
    lines = "".join(_funnel_row(s, came, total) for s, came in zip(steps, entering, strict=False))
    body = (
        '<table class="funnel"><thead class="unseen"><tr><th>Step</th><th>Rows</th>'
        f"<th>Share</th><th>Lost</th></tr></thead><tbody>{lines}</tbody></table>"
    )
    gone = entering[0] - steps[-1].count - failed - rejected
    words = (
        f"{total:,} in = {steps[-1].count:,} {escape(steps[-1].name)} "
        f"+ {failed:,} failed + {rejected:,} rejected"
    )
    if gone:
        words += f" + {gone:,} unaccounted for"
    return (
        f'{body}<p class="sum">{words}</p><p class="legend"><i class="go-on"></i>goes on '
        '<i class="failed"></i>failed here <i class="rejected"></i>rejected here</p>'
    )


def _funnel_row(step: FunnelStep, came: int, total: int) -> str:
    lost = []
    for kind, count, reasons in (
        ("failed", step.num_failed, step.failed),
        ("rejected", step.num_rejected, step.rejected),
    ):
        if count:
            named = [(reason.replace("_", " "), number) for reason, number in reasons]
            words = ", ".join(f"{number:,}\N{NO-BREAK SPACE}{reason}" for reason, number in named)
            words = named[0][0] if len(named) == 1 else words
            lost.append(
                f'<div><b class="{kind}">{count:,} {kind}:</b> '
                f'<span class="quiet">{escape(words)}</span></div>'
            )
    if came != step.num_accounted:
        words = f"does not add up: {came:,} came in, {step.num_accounted:,} accounted for"
        lost.append(f'<div><b class="failed">{words}</b></div>')
    bar = charts.funnel_bar(step.name, step.count, step.num_failed, step.num_rejected, total)
    return (
        f'<tr><th scope="row">{escape(step.name[:1].upper() + step.name[1:])}</th>'
        f'<td class="number">{step.count:,}</td><td class="bar-cell">{bar}</td>'
        f'<td class="lost">{"".join(lost)}</td></tr>'
    )


def accuracy(evaluation: Evaluation | None) -> str:
    """Return the bars of both models and their paired difference."""
    if evaluation is None:
        return _missing("The student has not been evaluated, so there is no accuracy to compare.")
    difference = evaluation.difference
    says = "significant" if difference.significant else "not significant"
    reading = (
        f"The difference is {says}: its interval "
        f"{'leaves out' if difference.significant else 'includes'} zero "
        f"({probability(difference.p)})."
    )
    note = (
        f"{plural(evaluation.student.num_prompts, 'test prompt')}; lines are 95\N{NO-BREAK SPACE}% "
        f"intervals; the difference is paired, in percentage points. {reading} {evaluation.method}"
    )
    return (
        charts.accuracy_chart(evaluation)
        + charts.difference_chart(evaluation)
        + f'<p class="note">{escape(note.strip())}</p>'
        + (_tasks(evaluation.tasks) if len(evaluation.tasks) > 1 else "")
    )


def _tasks(lines: Sequence[TaskLine]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(line.name)}</th>'
        f'<td class="number">{line.base:.1%}</td><td class="number">{line.student:.1%}</td>'
        f'<td class="number">{line.base_tokens:,.0f} | {line.student_tokens:,.0f}</td>'
        f"<td>{escape(line.words)}</td></tr>"
        for line in lines
    )
    return (
        '<table class="tasks"><thead><tr><th>Task</th><th>Base</th><th>Student</th>'
        "<th>Tokens an answer</th><th>Difference, paired</th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def training(losses: Sequence[LossPoint]) -> str:
    """Return the loss curve over the strip of the learning rate, and how to read them."""
    if not losses:
        return _missing("No loss was recorded for this run.")
    drawable = curves.finite_points(losses)
    lost = len(losses) - len(drawable)
    warning = ""
    if lost:
        warning = _missing(f"{plural(lost, 'step')} without a finite loss: not drawn.")
    if not drawable:
        return warning
    every, window = curves.drawn_every(len(drawable)), curves.smoothing_window(len(drawable))
    thin = "every step" if every == 1 else f"every {every:,} steps"
    note = f"{plural(len(losses), 'optimiser step')}."
    if window:
        note += f" Thin line: {thin}; thick line: mean over {window:,} steps."
    peak = max(point.learning_rate for point in drawable)
    return (
        '<p class="axis-title">Loss, nats per target token</p>'
        f"{curves.loss_chart(losses)}"
        f'<p class="axis-title">Learning rate, peak {scientific(peak)}</p>'
        f"{curves.learning_rate_chart(losses)}"
        f'{warning}<p class="note">{escape(note)}</p>'
    )


def stages(stage_seconds: Sequence[tuple[str, float]]) -> str:
    """Return the table of wall-clock time per stage, and its sum."""
    if not stage_seconds:
        return _missing("No stage times were recorded.")
    total = sum(seconds for _, seconds in stage_seconds)
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{duration(seconds)}</td>'
        f'<td class="bar-cell">{charts.share_bar(name, seconds, total)}</td></tr>'
        for name, seconds in stage_seconds
    )
    return (
        '<table class="stages"><thead class="unseen"><tr><th>Stage</th><th>Wall-clock time</th>'
        f"<th>Share</th></tr></thead><tbody>{lines}</tbody>"
        f'<tfoot><tr><th scope="row">Sum</th><td class="number">{duration(total)}</td><td></td>'
        "</tr></tfoot></table>"
    )


def rows(sample: Sequence[SampleRow], steps: Sequence[FunnelStep]) -> str:
    """Return the browser of chains, with its controls; `page.js` fills it."""
    if not sample:
        return _missing("No rows were included in this report.")
    total = steps[0].num_accounted if steps else len(sample)
    lead = "Each row is one chain: what the student drafted and what the teacher made of it."
    if total > len(sample):
        lead = f"A sample of {len(sample):,} of the {total:,} rows. {lead}"
    status = Counter(row.status for row in sample)
    drafts = Counter(verdict(row.draft_correct) for row in sample)
    controls = _choices("status", "Status", ("kept", "rejected", "failed"), status)
    controls += _choices("draft_verdict", "Draft", ("right", "wrong", "not graded"), drafts)
    columns = ("Prompt", "Draft", "Critique", "Refinement")
    return _browser("rows", lead, "Search prompts and texts", controls, columns)


def answers(pairs: Sequence[AnswerRow]) -> str:
    """Return the browser of test prompts answered by both models."""
    if not pairs:
        return _missing("No test answers were included in this report.")
    outcomes = Counter(row.outcome for row in pairs)
    names = ("fixed", "broke", "both right", "both wrong")
    controls = _choices("outcome", "Outcome", names, outcomes)
    lead = (
        "Each row is one test prompt. Fixed: only the student is right. "
        "Broke: only the base model is right."
    )
    columns = ("Prompt", "Base model", "Student")
    return _browser("answers", lead, "Search prompts and answers", controls, columns)


def _choices(key: str, legend: str, names: Iterable[str], counts: Counter[str]) -> str:
    def choice(value: str, label: str, count: int) -> str:
        checked = "" if value else " checked"
        return (
            f'<label><input type="radio" name="{key}" value="{value}"{checked}>'
            f"<span>{label} <small>{count:,}</small></span></label>"
        )

    labels = [choice("", "all", sum(counts.values()))]
    labels += [choice(name, name, counts[name]) for name in names if counts[name]]
    return f'<fieldset data-filter="{key}"><legend>{legend}</legend>{"".join(labels)}</fieldset>'


_PAGER = (
    '<div class="pager"><button type="button" data-turn="-1">Previous</button>'
    '<span class="place"></span><button type="button" data-turn="1">Next</button></div>'
)


def _browser(name: str, lead: str, search: str, controls: str, columns: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<p class="note">{escape(lead)}</p><form class="tools" role="search">'
        f'<input type="search" aria-label="{search}" placeholder="{search}" autocomplete="off" '
        f'spellcheck="false"><output class="found" aria-live="polite"></output>{_PAGER}'
        f'<div class="filters">{controls}</div></form>'
        f'<table class="texts {name}" role="table" aria-labelledby="{name}-name">'
        f'<thead class="unseen"><tr>{heads}</tr></thead><tbody role="rowgroup"></tbody></table>'
        f'<p class="nothing" hidden>Nothing matches. <button type="button" data-clear>Clear the '
        f"search and filters</button></p>{_PAGER}"
    )


def settings(settings_text: str, versions: Iterable[tuple[str, str]]) -> str:
    """Return the resolved settings, folded, and the table of versions."""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(version)}</td></tr>'
        for name, version in versions
    )
    text = _missing("No settings were recorded.")
    if settings_text.strip():
        count = plural(len(settings_text.strip().splitlines()), "line")
        text = (
            f"<details><summary>Resolved settings <small>{count}</small></summary>"
            f'<pre tabindex="0">{escape(settings_text.strip())}</pre></details>'
        )
    table = _missing("No versions were recorded.")
    if lines:
        table = f'<table class="versions"><tbody>{lines}</tbody></table>'
    return f"{text}{table}"
