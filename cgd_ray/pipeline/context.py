"""What every stage of a run is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgd_ray.identity import StageFolders, stage_folders
from cgd_ray.progress import Progress
from cgd_ray.prompts.sources import source_versions
from cgd_ray.settings import Settings
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
    retry_failed: bool = False  # try rows again that failed, for good or not


def open_context(settings: Settings, *, retry_failed: bool = False) -> RunContext:
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
        retry_failed=retry_failed,
    )
