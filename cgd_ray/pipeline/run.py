"""The verbs: each makes the artefacts that it names; what is finished is skipped."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from cgd_ray.evaluation.summary import task_lines
from cgd_ray.evaluation.tasks import OWN
from cgd_ray.lease import lease_folder, owned
from cgd_ray.local_servers import local_servers
from cgd_ray.noise import say
from cgd_ray.pipeline.context import RunContext, Summary, open_context, with_retry
from cgd_ray.pipeline.models import trained_model
from cgd_ray.pipeline.names import PAGE, SUMMARY
from cgd_ray.pipeline.stages import (
    check_training,
    finished,
    folder_of,
    require,
    run_generation,
    run_stage,
)
from cgd_ray.pipeline.teacher_address import check_teacher
from cgd_ray.processes import require_free_port
from cgd_ray.runtime import ray_session
from cgd_ray.settings import Settings
from cgd_ray.store import open_store


@contextmanager
def opened(settings: Settings, *, join: bool = True) -> Iterator[RunContext]:
    """Hold a run's local servers and context for the length of the block, to read from.

    Args:
        settings: of the run.
        join: read through the servers of a run that is at work, if it is.

    Raises:
        UserError: a server does not start, or the bucket cannot be used.
    """
    with local_servers(settings, join=join):
        open_store(settings.run.root).check("run.root")
        yield open_context(settings)


@contextmanager
def held(settings: Settings, *, retry_failed: bool = False) -> Iterator[RunContext]:
    """Hold a run as its only owner, to write to.

    Raises:
        UserError: as `opened`; or another process is at work on the run.
    """
    with opened(settings, join=False) as ctx:
        folder = lease_folder(settings.run.name)
        with owned(ctx.store, folder, settings.run.lease_s):
            yield with_retry(ctx) if retry_failed else ctx


def prompts(settings: Settings) -> None:
    """Load the prompts."""
    with held(settings) as ctx:
        run_stage(ctx, "prompts")


def generate(settings: Settings, *, retry_failed: bool = False) -> None:
    """Make drafts, critiques and refinements, after the prompts."""
    with held(settings, retry_failed=retry_failed) as ctx:
        _check_teacher(ctx)
        with _session(ctx, "refinements"):
            run_stage(ctx, "prompts")
            run_generation(ctx)


def drafts(settings: Settings, *, retry_failed: bool = False) -> None:
    """Make the drafts alone, after the prompts."""
    with held(settings, retry_failed=retry_failed) as ctx:
        run_stage(ctx, "prompts")
        run_stage(ctx, "drafts")


def teach(settings: Settings, *, retry_failed: bool = False) -> None:
    """Make critiques and refinements of the stored drafts."""
    with held(settings, retry_failed=retry_failed) as ctx:
        require(ctx, "drafts")
        _check_teacher(ctx)
        run_stage(ctx, "refinements")


def examples(settings: Settings) -> None:
    """Verify the chains, and make and pack the examples."""
    with held(settings) as ctx:
        require(ctx, "refinements")
        run_stage(ctx, "curated")
        run_stage(ctx, "examples")


def train(settings: Settings) -> None:
    """Fine-tune the student on the packed examples."""
    with held(settings) as ctx:
        require(ctx, "examples")
        run_stage(ctx, "checkpoint")


def evaluate(settings: Settings) -> None:
    """Score base and student on the test prompts."""
    _check_port(settings)
    with held(settings) as ctx:
        if settings.evaluate.base_url is None:
            require(ctx, "checkpoint")
        if OWN in settings.evaluate.tasks:
            require(ctx, "prompts")
        say(scores_in_words(run_stage(ctx, "scores")))


def report(settings: Settings) -> None:
    """Write the page and the summary of what is finished."""
    with held(settings) as ctx:
        require(ctx, "prompts")
        run_stage(ctx, "report")
        say(f"report      {_copy_report(ctx)}")


def run(settings: Settings, *, retry_failed: bool = False) -> None:
    """Do everything, from prompts to report."""
    with held(settings, retry_failed=retry_failed) as ctx:
        if finished(ctx, "scores") is None:
            _check_port(settings)
            check_training(ctx)
            _check_teacher(ctx)
        with _session(ctx, "scores"):
            run_stage(ctx, "prompts")
            _run_round(ctx)
            while ctx.round < settings.run.rounds:
                ctx = replace(open_context(settings), progress=ctx.progress)
                _run_round(ctx)
            ctx = replace(ctx, retry_failed=False)  # what failed again stays failed
            scores = run_stage(ctx, "scores")
        run_stage(ctx, "report")
        page = _copy_report(ctx)
        student = trained_model(ctx)
    say(scores_in_words(scores))
    say(f"report      {page}")
    say(f"summary     {page.with_name(SUMMARY)}")
    say(f"checkpoint  {student}")


def scores_in_words(summary: Summary) -> str:
    """Return the evaluation as three short lines, about its first task, and a table if of more."""
    lines = [
        f"{model:<12}{summary[model]['accuracy']:.1%} right of {summary[model]['num_prompts']} "
        f"(95 % interval {summary[model]['low']:.1%} to {summary[model]['high']:.1%})"
        for model in ("base", "student")
    ]
    tasks = task_lines(summary["tasks"]) if len(summary["tasks"]) > 1 else []
    return "\n".join([*lines, f"difference  {summary['in_words']}", *tasks])


def _run_round(ctx: RunContext) -> None:
    """Draft, teach and train, from the student of the round before."""
    if ctx.settings.run.rounds > 1:
        say(f"round {ctx.round} of {ctx.settings.run.rounds}")
    run_generation(ctx)
    ctx = replace(ctx, retry_failed=False)
    for key in ("curated", "examples", "checkpoint"):
        run_stage(ctx, key)


def _session(ctx: RunContext, last: str) -> AbstractContextManager[None]:
    """Hold one Ray session for all stages up to `last`; none if those are finished."""
    if finished(ctx, last) is not None:
        return nullcontext()
    return ray_session(ctx.settings.run.num_cpus)


def _check_teacher(ctx: RunContext) -> None:
    # Before drafting: a bad key must not cost an hour of it.
    if not ctx.settings.local.tutor and finished(ctx, "refinements") is None:
        check_teacher(ctx.settings.teacher)


def _check_port(settings: Settings) -> None:
    if settings.evaluate.base_url is None:
        require_free_port(settings.serve.host, settings.serve.port, "serve.port")


def _copy_report(ctx: RunContext) -> Path:
    """Copy the page and the summary to `run.work_dir`, where a browser can open them."""
    folder = ctx.work_dir / ctx.settings.run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PAGE, SUMMARY):
        (folder / name).write_bytes(ctx.store.get(f"{folder_of(ctx, 'report')}/{name}"))
    return folder / PAGE
