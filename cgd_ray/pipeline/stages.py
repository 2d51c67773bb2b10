"""The stages of a run, in order, and the rule by which a finished one is skipped.

A stage's module is imported when there is work to do: a run that is finished says so in seconds.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cgd_ray.errors import UserError
from cgd_ray.pipeline.context import RunContext, Summary
from cgd_ray.shards import mark_complete, read_complete


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run."""

    key: str  # the field of StageFolders that says where its artefact is
    name: str  # as people read it
    make: str  # "module:function", from a RunContext to the summary in COMPLETE.json
    verb: str  # the command that makes it
    phrase: Callable[[Summary], str]  # what a finished stage holds, for the line that skips it


def _failed(summary: Summary) -> str:
    return f"{sum(summary['failed'].values())} failed"


STAGES = (
    Stage(
        "prompts",
        "prompts",
        "cgd_ray.pipeline.prompts:make_prompts",
        "prompts",
        lambda s: f"{s['train']} training and {s['test']} test prompts",
    ),
    Stage(
        "drafts",
        "drafts",
        "cgd_ray.pipeline.generate:make_drafts",
        "generate",
        lambda s: f"{s['made']} drafts, {_failed(s)}",
    ),
    Stage(
        "refinements",
        "teacher",
        "cgd_ray.pipeline.generate:make_refinements",
        "generate",
        lambda s: f"{s['critiqued']} critiques, {s['refined']} refinements, {_failed(s)}",
    ),
    Stage(
        "curated",
        "curation",
        "cgd_ray.pipeline.curate:make_curated",
        "examples",
        lambda s: f"{s['kept']} of {s['asked']} rows kept",
    ),
    Stage(
        "examples",
        "examples",
        "cgd_ray.pipeline.examples:make_examples",
        "examples",
        lambda s: f"{s['made']} examples in {s['packed_batches']} packed batches",
    ),
    Stage(
        "checkpoint",
        "training",
        "cgd_ray.pipeline.train:make_checkpoint",
        "train",
        lambda s: f"{s['steps']} steps, loss {s['first_loss']} to {s['last_loss']}",
    ),
    Stage(
        "scores",
        "evaluation",
        "cgd_ray.pipeline.evaluate:make_scores",
        "evaluate",
        lambda s: f"base {s['base']['accuracy']:.1%}, student {s['student']['accuracy']:.1%}",
    ),
    Stage("report", "report", "cgd_ray.pipeline.report:make_report", "report", lambda _: "page"),
)


def stage(key: str) -> Stage:
    """Return the stage with this key."""
    return next(stage for stage in STAGES if stage.key == key)


def folder_of(ctx: RunContext, key: str) -> str:
    """Return where a stage of this run keeps its artefact."""
    return getattr(ctx.folders, key)


def finished(ctx: RunContext, key: str) -> Summary | None:
    """Return the summary of a finished stage; None if there is work to do in it."""
    summary = read_complete(ctx.store, folder_of(ctx, key))
    if summary and ctx.retry_failed and key in ("drafts", "refinements") and summary["failed"]:
        return None
    return summary


def require(ctx: RunContext, key: str) -> None:
    """Refuse to go on without a stage's artefact.

    Raises:
        UserError: it is not finished; the message names the command.
    """
    if finished(ctx, key) is None:
        raise UserError(
            f"{ctx.store.root}/{folder_of(ctx, key)} is not finished: run "
            f"`cgd {stage(key).verb}` with the same settings first"
        )


def run_stage(ctx: RunContext, key: str) -> Summary:
    """Make a stage's artefact, or say that it exists; return its summary."""
    wanted, folder = stage(key), folder_of(ctx, key)
    done = finished(ctx, key)
    if done is not None:
        ctx.progress.skipped(wanted.name, f"{wanted.phrase(done)} ({folder})")
        return done
    start = time.monotonic()
    summary: Summary = _function(wanted.make)(ctx)
    # Of this attempt: a stage that was killed and resumed reports its last part only.
    summary["seconds"] = round(time.monotonic() - start, 3)
    mark_complete(ctx.store, folder, summary)
    return summary


def run_generation(ctx: RunContext) -> None:
    """Make drafts and refinements, both in one streaming plan where neither is finished."""
    if finished(ctx, "drafts") is not None or finished(ctx, "refinements") is not None:
        run_stage(ctx, "drafts")
        run_stage(ctx, "refinements")
        return
    start = time.monotonic()
    drafts, refinements = _function("cgd_ray.pipeline.generate:make_both")(ctx)
    drafts["seconds"] = round(time.monotonic() - start, 3)
    refinements["seconds"] = 0.0  # beside the drafts: seconds of stages add up to those of a run
    mark_complete(ctx.store, folder_of(ctx, "drafts"), drafts)
    mark_complete(ctx.store, folder_of(ctx, "refinements"), refinements)


def check_training(ctx: RunContext) -> None:
    """Refuse now what training would refuse, before a teacher is paid for it.

    Raises:
        UserError: the student cannot be trained, or a tracker's package is missing.
    """
    if finished(ctx, "checkpoint") is None:
        _function("cgd_ray.pipeline.train:check_before")(ctx)


def _function(name: str) -> Callable[[RunContext], Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
