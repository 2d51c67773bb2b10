"""What every stage of a run is given."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgd_ray.evaluation.loading import task_versions
from cgd_ray.identity import StageFolders, stage_folders
from cgd_ray.progress import Progress
from cgd_ray.prompts.sources import source_versions
from cgd_ray.settings import Settings
from cgd_ray.shards import read_complete
from cgd_ray.store import Store, open_store
from cgd_ray.watching.export import export
from cgd_ray.watching.figures import LineFigures

Summary = dict[str, Any]  # a stage's COMPLETE.json: counts, seconds, what later stages ask of it


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run that is under way."""

    settings: Settings
    store: Store
    folders: StageFolders
    work_dir: Path
    progress: Progress
    round: int = 1  # of `run.rounds`: the first that has no student yet, or the last
    start: str | None = None  # checkpoint folder of the round before
    retry_failed: bool = False  # try rows again that failed, for good or not


def open_context(settings: Settings, store: Store | None = None) -> RunContext:
    """Return the context of a run, in the round it has come to; its local servers must be up.

    Args:
        settings: of the run.
        store: at `run.root`, opened; None opens it.

    Raises:
        UserError: a prompt file is missing or the store's address is malformed.
    """
    store = store or open_store(settings.run.root)
    versions = source_versions(settings.prompts)
    number, start = 1, None
    folders = _folders(store, settings, versions, start)
    while number < settings.run.rounds and read_complete(store, folders.checkpoint) is not None:
        number, start = number + 1, folders.checkpoint
        folders = _folders(store, settings, versions, start)
    lines = LineFigures(settings.run.name)
    return RunContext(
        settings=settings,
        store=store,
        folders=folders,
        work_dir=Path(settings.run.work_dir),
        progress=Progress(watch=lambda counts: export(lines.of(counts))),
        round=number,
        start=start,
    )


def with_retry(ctx: RunContext) -> RunContext:
    """Return a context that tries failed rows again, if any row has failed.

    What follows from the refinements is then made anew, in folders of its own: it may see more
    rows than before.
    """
    stages = (ctx.folders.drafts, ctx.folders.refinements)
    summaries = [read_complete(ctx.store, folder) for folder in stages]
    if all(summary is not None and not summary["failed"] for summary in summaries):
        return ctx
    retries = 1 + sum(1 for _ in ctx.store.list(_retries(ctx.folders)))
    ctx.store.put_new(f"{_retries(ctx.folders)}{retries:06d}", b"")
    return replace(open_context(ctx.settings), retry_failed=True)


def _folders(
    store: Store, settings: Settings, versions: tuple[str, ...], start: str | None
) -> StageFolders:
    retries = sum(1 for _ in store.list(_retries(stage_folders(settings, versions, 0, start))))
    tasks = task_versions(settings.evaluate.tasks, settings.evaluate.data_dir)
    return stage_folders(settings, versions, retries, start, tasks)


def _retries(folders: StageFolders) -> str:
    """Return the prefix of the marks that each `--retry-failed` leaves."""
    return f"{folders.refinements}/retries/"
