"""The trained student of a run, as a local folder."""

import json
import shutil
import tempfile
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.identity import stage_folders
from cgd_ray.prompts.sources import source_versions
from cgd_ray.settings import Settings
from cgd_ray.shards import read_complete
from cgd_ray.store import Store, open_store
from cgd_ray.training.checkpoint import file_hash


def trained_model(settings: Settings, work_dir: Path) -> Path:
    """Return the folder of a run's trained student, fetched from the store once.

    Raises:
        UserError: the run has not been trained, or the stored files are damaged.
    """
    folder = stage_folders(settings, source_versions(settings.prompts)).checkpoint
    target = (work_dir / "models" / folder).resolve()
    if target.is_dir():
        return target
    store = open_store(settings.run.root)
    if read_complete(store, folder) is None:
        raise UserError(
            f"{settings.run.root}/{folder} holds no trained student: run `cgd train` with the same "
            "settings first"
        )
    _fetch(store, folder, target)
    return target


def _fetch(store: Store, folder: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        part = Path(temporary) / "model"
        part.mkdir()
        for name, _, digest in json.loads(store.get(f"{folder}/model.json")):
            store.download(f"{folder}/model/{name}", part / name)
            if file_hash(part / name) != digest:
                raise UserError(f"{store.root}/{folder}/model/{name} is damaged: train again")
        if not target.exists():
            shutil.move(part, target)
