"""The verbs: each runs the stages that it names, and those whose output it needs."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.local_servers import local_servers
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.pipeline.curate import run_curation
from cgd_ray.pipeline.evaluate import run_evaluate
from cgd_ray.pipeline.examples import run_examples
from cgd_ray.pipeline.generate import run_drafts, run_refinements
from cgd_ray.pipeline.prompts import run_prompts
from cgd_ray.pipeline.report import SUMMARY, run_report
from cgd_ray.pipeline.teacher_address import teacher_address
from cgd_ray.pipeline.train import run_train
from cgd_ray.runtime import ray_session
from cgd_ray.serving.app import served_models
from cgd_ray.serving.server import check_port, served
from cgd_ray.settings import Settings
from cgd_ray.shards import read_complete
from cgd_ray.store import S3Store
from cgd_ray.student import chat_tokenizer, student_source


@contextmanager
def opened(settings: Settings) -> Iterator[RunContext]:
    """Hold a run's local servers and context for the length of the block, the store checked."""
    with local_servers(settings):
        ctx = open_context(settings)
        if isinstance(ctx.store, S3Store):
            ctx.store.check()
        yield ctx


def prompts(settings: Settings) -> None:
    """Load the prompts."""
    with opened(settings) as ctx:
        run_prompts(ctx)


def generate(settings: Settings) -> None:
    """Make drafts, critiques and refinements."""
    with opened(settings) as ctx:
        _generate(ctx)


def examples(settings: Settings) -> None:
    """Verify the chains, and make and pack the examples."""
    with opened(settings) as ctx:
        _require(ctx, ctx.folders.refinements, "cgd generate")
        run_curation(ctx)
        run_examples(ctx)


def train(settings: Settings) -> None:
    """Fine-tune the student on the packed examples."""
    with opened(settings) as ctx:
        _require(ctx, ctx.folders.examples, "cgd examples")
        run_train(ctx)


def serve(settings: Settings) -> None:
    """Serve base and student until Ctrl-C."""
    check_port(settings)
    with ExitStack() as stack:
        # A student that was fetched before needs no store, and so no S3 server.
        models = _models(settings)
        stack.enter_context(ray_session(settings.run.num_cpus))
        print("starting the engines ...", flush=True)
        base_url = stack.enter_context(served(settings, models))
        names = ", ".join(model.id for model in models)
        print(f"serving {names} at {base_url} (Ctrl-C stops)", flush=True)
        _wait_for_interrupt()


def evaluate(settings: Settings) -> None:
    """Score base and student on the test prompts."""
    with opened(settings) as ctx:
        _require(ctx, ctx.folders.checkpoint, "cgd train")
        summary = run_evaluate(ctx)
        print(scores_in_words(summary))


def report(settings: Settings) -> None:
    """Write the page and the summary."""
    with opened(settings) as ctx:
        print(f"report: {run_report(ctx)}")


def run(settings: Settings) -> None:
    """Do everything, from prompts to report; what is finished is skipped."""
    if settings.evaluate.base_url is None:
        check_port(settings)
    with opened(settings) as ctx:
        run_prompts(ctx)
        with ray_session(settings.run.num_cpus) if _work_left(ctx) else ExitStack():
            _generate(ctx)
            run_curation(ctx)
            run_examples(ctx)
            run_train(ctx)
            evaluation = run_evaluate(ctx)
        page = run_report(ctx)
        student = served_models(settings)[-1]
    print(scores_in_words(evaluation))
    print(f"report      {page}")
    print(f"summary     {page.with_name(SUMMARY)}")
    print(f"checkpoint  {student.source}")


def scores_in_words(summary: dict[str, object]) -> str:
    """Return the evaluation as three short lines."""
    lines: list[str] = []
    for model in ("base", "student"):
        m: dict[str, float] = summary[model]  # pyright: ignore[reportAssignmentType]
        lines.append(
            f"{model:<12}{m['accuracy']:6.1%} right of {m['num_prompts']}  "
            f"(95 % interval {m['low']:.1%} to {m['high']:.1%})"
        )
    return "\n".join([*lines, f"difference  {summary['in_words']}"])


def _generate(ctx: RunContext) -> None:
    # The cheap checks first: a bad key or template must not cost an hour of drafting.
    if read_complete(ctx.store, ctx.folders.drafts) is None:
        chat_tokenizer(student_source(ctx.settings.student.model, ctx.work_dir))
    with teacher_address(ctx) as base_url:
        run_prompts(ctx) if read_complete(ctx.store, ctx.folders.prompts) is None else None
        run_drafts(ctx)
        run_refinements(ctx, base_url)


def _work_left(ctx: RunContext) -> bool:
    return read_complete(ctx.store, ctx.folders.scores) is None


def _require(ctx: RunContext, folder: str, command: str) -> None:
    if read_complete(ctx.store, folder) is None:
        raise UserError(
            f"{ctx.store.root}/{folder} is not finished: run `{command}` with the same settings "
            "first"
        )


def _models(settings: Settings) -> list:
    with ExitStack() as stack:
        try:
            return served_models(settings)
        except UserError:
            stack.enter_context(opened(settings))
            return served_models(settings)


def _wait_for_interrupt() -> None:
    import signal

    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except KeyboardInterrupt:
        print()


def read_summary(path: Path) -> dict[str, object]:
    """Return a summary.json."""
    return json.loads(path.read_text(encoding="utf-8"))
