"""Stages 7 and 8: serve base and student, ask both over HTTP, grade, compare."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cgd_ray.errors import UserError
from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.evaluation.paired import compare_paired, describe
from cgd_ray.evaluation.runner import Question, answer_questions, score_answers
from cgd_ray.evaluation.statistics import mean_interval
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.models import trained_model
from cgd_ray.pipeline.prompts import read_prompts
from cgd_ray.progress import StageLine
from cgd_ray.records import Score
from cgd_ray.runtime import ray_session
from cgd_ray.serving.exposure import own_key
from cgd_ray.serving.models import BASE, STUDENT, ServedModel
from cgd_ray.serving.server import served
from cgd_ray.shards import commit_shard, read_failures, read_records
from cgd_ray.student import student_source

_SHARD_ROWS = 32


def make_scores(ctx: RunContext) -> Summary:
    """Ask both models the test prompts that have no score yet, and compare them.

    Raises:
        UserError: the data has no references; or questions stayed without an answer: the answers
            that came are kept, and the same command asks the rest.
    """
    if ctx.settings.prompts.columns.reference is None:
        raise UserError(
            "evaluation needs references to grade against: set prompts.columns.reference"
        )
    folder = ctx.folders.scores
    prompts = read_prompts(ctx, "test")
    done = read_records(ctx.store, folder, Score)
    questions: list[Question] = [
        (model, prompt)
        for prompt in prompts.values()
        for model in (BASE, STUDENT)
        if f"{model}/{prompt.id}" not in done
    ]
    with ctx.progress.stage("evaluation", 2 * len(prompts), "answers") as line:
        line.update(0, 0, len(done), "starting the server")
        with _endpoint(ctx) as base_url:
            asyncio.run(_ask(ctx, base_url, questions, line, len(done)))
    scores = read_records(ctx.store, folder, Score)
    failures = read_failures(ctx.store, folder, scores)
    if len(scores) < 2 * len(prompts):
        first = next(iter(failures.values()))
        raise UserError(
            f"{2 * len(prompts) - len(scores)} questions have no answer (first: {first.row_id}: "
            f"{first.reason}: {first.detail}); the same command asks them again"
        )
    return _compare(ctx, scores)


@contextmanager
def _endpoint(ctx: RunContext) -> Iterator[str]:
    """Yield an endpoint that serves both models: the user's own, or ours."""
    if ctx.settings.evaluate.base_url:
        yield ctx.settings.evaluate.base_url
        return
    base = student_source(ctx.settings.student.model, ctx.work_dir)
    models = [ServedModel(BASE, base), ServedModel(STUDENT, str(trained_model(ctx)))]
    with (
        ray_session(ctx.settings.run.num_cpus),
        served(ctx.settings, models, private=True) as base_url,
    ):
        yield base_url


async def _ask(
    ctx: RunContext, base_url: str, questions: list[Question], line: StageLine, skipped: int
) -> None:
    made = failed = 0
    waiting = []
    with GraderPool(ctx.settings.curation.num_processes) as pool:
        # Ours for our own server only: another's endpoint must not see it.
        key = None if ctx.settings.evaluate.base_url else own_key(ctx.settings.serve)
        answers = answer_questions(base_url, questions, ctx.settings.evaluate, key)
        async for answer in answers:
            waiting.append(answer)
            if len(waiting) < _SHARD_ROWS and made + failed + len(waiting) < len(questions):
                continue
            outcomes = score_answers(waiting, pool)
            commit_shard(ctx.store, ctx.folders.scores, [*outcomes.records, *outcomes.failures])
            made += len(outcomes.records)
            failed += len(outcomes.failures)
            waiting = []
            line.update(made, failed, skipped)


def _compare(ctx: RunContext, scores: dict[str, Score]) -> Summary:
    verdicts = {
        model: {s.prompt_id: [s.correct] for s in scores.values() if s.model == model}
        for model in (BASE, STUDENT)
    }
    comparison = compare_paired(
        verdicts[BASE],
        verdicts[STUDENT],
        seed=ctx.settings.run.seed,
        num_resamples=ctx.settings.evaluate.num_resamples,
    )
    summary: Summary = {}
    for model, correct in verdicts.items():
        interval = mean_interval(correct)
        tokens = sum(s.num_tokens for s in scores.values() if s.model == model)
        summary[model] = {
            "accuracy": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "num_prompts": len(correct),
            "tokens_per_answer": tokens / len(correct),
        }
    summary["difference"] = {
        "mean": comparison.mean,
        "low": comparison.low,
        "high": comparison.high,
        "p": comparison.p,
        "wins": comparison.wins,
        "losses": comparison.losses,
    }
    summary["in_words"] = describe(comparison)
    return summary
