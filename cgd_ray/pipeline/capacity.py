"""`cgd estimate --cluster`: what many prompts need, told from what a few have cost.

What the run has already made is read from its artefacts; where it has none, benchmarks and
assumptions stand in, and the page says which.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from cgd_ray.capacity.figures import (
    Figure,
    given_figures,
    standard_figures,
    with_figures,
)
from cgd_ray.capacity.needs import needs
from cgd_ray.capacity.page import capacity_page
from cgd_ray.capacity.sizing import (
    machines_of,
    pools_of,
    prices_of,
    rates_of,
    used,
    with_rates,
    work_of,
)
from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.pipeline.reading import reading
from cgd_ray.pipeline.stages import finished
from cgd_ray.settings import Settings

SIZES = (100_000, 10_000_000)
_FEWEST_S = 60.0  # of drafting: a shorter one measures the engine's start
_SPEEDS = ("sampler_tokens_per_s", "trainer_tokens_per_s")


def capacity_page_of(
    settings: Settings,
    ctx: RunContext | None,
    assume: Sequence[str] = (),
    unread: str | None = None,
) -> str:
    """Return the page.

    Args:
        settings: of the run.
        ctx: of its artefacts; None: they cannot be read.
        assume: figures that the user gives, as `name=value`.
        unread: why they cannot be read.

    Raises:
        UserError: a figure is wrong, the run fits no nodes, or nothing is known of its speed.
    """
    machines = machines_of(settings)
    known = {**standard_figures(settings), **prices_of(settings, machines)}
    measured = list(measured_figures(ctx)) if ctx is not None else []
    known = with_figures(known, measured)
    slots = {name: Figure(name, 0.0, "tokens/s", "assumed", "") for name in _SPEEDS}
    known = with_figures(known, given_figures(assume, {**slots, **known}))
    known = with_rates(settings, machines, known)
    pools, work = pools_of(settings, machines, known), work_of(settings, known)
    rates = rates_of(settings, known)
    found = [needs(number, work, rates, pools) for number in SIZES]
    notes = _notes(unread, bool(measured))
    return capacity_page(settings.run.name, found, used(known, pools), notes)


def measured_figures(ctx: RunContext) -> Iterator[Figure]:
    """Yield what the run's finished stages say."""
    drafts, teacher = finished(ctx, "drafts"), finished(ctx, "refinements")
    curated, examples = finished(ctx, "curated"), finished(ctx, "examples")
    training = finished(ctx, "checkpoint")
    if drafts and drafts["made"]:
        yield from _of_drafts(ctx, drafts)
    if teacher and teacher["refined"]:
        yield from _of_teacher(ctx, teacher)
    if curated and curated["kept"]:
        share = curated["kept"] / curated["asked"]
        yield _measured(ctx, "kept_share", share, "of the refinements", "curated")
        if examples and examples["made"]:
            tokens = examples["tokens"] / curated["kept"]
            yield _measured(ctx, "example_tokens", tokens, "tokens a kept row", "examples")
    if training and training["steps"]:
        speed, unit = training["tokens_per_second"], "tokens/s, all workers"
        yield _measured(ctx, "trainer_tokens_per_s", speed, unit, "checkpoint")


def _of_drafts(ctx: RunContext, drafts: Summary) -> Iterator[Figure]:
    made, engines = drafts["made"], ctx.settings.sampling.max_replicas
    yield _measured(ctx, "draft_tokens", drafts["tokens"] / made, "tokens", "drafts")
    yield _measured(ctx, "drafted_share", made / drafts["asked"], "of the drafts asked", "drafts")
    fresh = made - drafts.get("before", made)  # of a resumed stage the seconds are the last part's
    if fresh > 0 and drafts["seconds"] >= _FEWEST_S:
        speed = drafts["tokens"] * fresh / made / drafts["seconds"] / engines
        unit = "tokens/s an engine, its start and waits included"
        yield _measured(ctx, "sampler_tokens_per_s", speed, unit, "drafts")


def _of_teacher(ctx: RunContext, teacher: Summary) -> Iterator[Figure]:
    asked, unit = teacher["asked"], "tokens a draft"
    share = teacher["refined"] / asked
    yield _measured(ctx, "refined_share", share, "of the drafts", "refinements")
    for name in ("input", "cached"):
        tokens = teacher[f"{name}_tokens"] / asked
        yield _measured(ctx, f"teacher_{name}_tokens", tokens, unit, "refinements")
    answered = teacher["output_tokens"] / asked
    # Of one answer or two, only their sum is in the summary, and only their sum counts.
    yield _measured(ctx, "critique_tokens", answered / 2, f"{unit}, half of both", "refinements")
    yield _measured(ctx, "refinement_tokens", answered / 2, f"{unit}, half of both", "refinements")


def _measured(ctx: RunContext, name: str, value: float, unit: str, key: str) -> Figure:
    folder = getattr(ctx.folders, key)
    return Figure(name, value, unit, "measured", f"this run: {folder}/COMPLETE.json")


def _notes(unread: str | None, measured: bool) -> list[str]:
    lines = [
        "Nothing here has run on a GPU: speeds on GPUs are assumptions until a run of yours has "
        "measured them.",
        "Left out: evaluation, serving, storage and requests of S3, traffic between zones, nodes "
        "while they start.",
        "Change any line with --assume NAME=VALUE, nodes with cluster.*_instance, "
        "sampling.max_replicas, train.num_workers.",
    ]
    if unread is not None:
        lines.append(f"The run's artefacts cannot be read: {unread}.")
    elif not measured:
        lines.append(
            "The run has made nothing yet: after a run with prompts.num_train=500 this page is "
            "told from it."
        )
    return lines


def print_capacity(settings: Settings, assume: Sequence[str]) -> None:
    """Print the page, from the run's artefacts if they can be read.

    Raises:
        UserError: as `capacity_page_of`.
    """
    with ExitStack() as stack:
        try:
            ctx, unread = stack.enter_context(reading(settings)), None
        except UserError as error:
            ctx, unread = None, str(error)
        say(capacity_page_of(settings, ctx, assume, unread))
