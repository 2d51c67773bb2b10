"""Folders of models below `run.work_dir`, on any node: made again where they are missing."""

import fcntl
import json
import shutil
import tempfile
from pathlib import Path

from cgd_ray.errors import UserError
from cgd_ray.settings import EMBEDDED_STUDENT
from cgd_ray.store import Store, open_store
from cgd_ray.student import EMBEDDED_FOLDER, student_source
from cgd_ray.training.checkpoint import file_hash

FOLDER = "models"  # of run.work_dir
CARD = "README.md"  # the one file that changes after training: scores are added to it


def on_this_node(source: str, root: str) -> str:
    """Return a model's source, there for this node as it was for the driver's.

    Folders that we made ourselves, under `run.work_dir`, are made again where they are missing:
    nodes need not share their disks.

    Args:
        source: folder or Hugging Face id, as the driver knows it.
        root: of the store.

    Raises:
        UserError: the stored files are damaged.
    """
    folder = Path(source)
    ours = folder.name == EMBEDDED_FOLDER or folder.name.startswith("checkpoint-")
    if not (folder.is_absolute() and folder.parent.name == FOLDER and ours):
        return source
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of a node come at the same time
        if not folder.is_dir():
            if folder.name == EMBEDDED_FOLDER:
                student_source(EMBEDDED_STUDENT, folder.parents[1])
            else:
                fetch_model(open_store(root), folder.name, folder)
    return source


def fetch_model(store: Store, checkpoint: str, target: Path) -> None:
    """Copy a checkpoint's model out of the store, all of it or nothing.

    Args:
        store: of the run.
        checkpoint: folder of the trained student there.
        target: folder to make.

    Raises:
        UserError: the stored files are damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        part = Path(temporary) / "model"
        part.mkdir()
        for name, _, digest in json.loads(store.get(f"{checkpoint}/model.json")):
            store.download(f"{checkpoint}/model/{name}", part / name)
            if name != CARD and file_hash(part / name) != digest:
                raise UserError(f"{store.root}/{checkpoint}/model/{name} is damaged: train again")
        if not target.exists():
            shutil.move(part, target)
