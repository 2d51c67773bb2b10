"""What every stage of a run is given, and the rule by which a finished stage is skipped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgd_ray.identity import StageFolders, stage_folders
from cgd_ray.progress import Progress
from cgd_ray.prompts.sources import source_versions
from cgd_ray.settings import Settings
from cgd_ray.shards import mark_complete, read_complete
from cgd_ray.store import Store, open_store

Summary = dict[str, Any]  # a stage's COMPLETE.json: counts, seconds, what later stages ask of it


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run that is under way."""

    settings: Settings
    store: Store
    folders: StageFolders
    work_dir: Path
    progress: Progress


def open_context(settings: Settings) -> RunContext:
    """Return the context of a run; its local servers must be up.

    Raises:
        UserError: a prompt file is missing or the store's address is malformed.
    """
    return RunContext(
        settings=settings,
        store=open_store(settings.run.root),
        folders=stage_folders(settings, source_versions(settings.prompts)),
        work_dir=Path(settings.run.work_dir),
        progress=Progress(),
    )


def run_stage(
    ctx: RunContext, name: str, folder: str, make: Callable[[], Summary], shown: Callable[..., str]
) -> Summary:
    """Make a stage's artefact, or say that it exists.

    Args:
        ctx: the run.
        name: as people read it.
        folder: where its artefact is.
        make: does the work, resuming what an earlier attempt committed; returns the summary.
        shown: one phrase from the summary, for the line that says it was skipped.
    """
    done = read_complete(ctx.store, folder)
    if done is not None:
        ctx.progress.skipped(name, f"{shown(done)} ({folder})")
        return done
    start = time.monotonic()
    summary = make()
    # Of this attempt: a stage that was killed and resumed reports its last part only.
    summary["seconds"] = round(time.monotonic() - start, 3)
    mark_complete(ctx.store, folder, summary)
    return summary
