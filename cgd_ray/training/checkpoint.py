"""Training states in the store: files first, a manifest with sizes and hashes last.

A checkpoint exists when its manifest does. A file that does not match its manifest is never
loaded: DeepSpeed unpickles what it reads.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from cgd_ray.records import Checkpoint
from cgd_ray.store import MissingKey, Store

File = tuple[str, int, str]  # name below the checkpoint's folder, bytes, SHA-256

_MANIFEST = "MANIFEST.json"


def checkpoint_folder(stage_folder: str, step: int) -> str:
    """Return where the state after `step` optimiser steps is kept."""
    return f"{stage_folder}/states/step-{step:08d}"


def upload_files(store: Store, folder: str, source: Path) -> list[File]:
    """Upload every file below a local folder; return what a manifest says of them."""
    files: list[File] = []
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        store.upload(path, f"{folder}/{name}")
        files.append((name, path.stat().st_size, file_hash(path)))
    return files


def commit_checkpoint(
    store: Store, folder: str, step: int, num_workers: int, files: Sequence[File]
) -> Checkpoint:
    """Declare a checkpoint whole, after every worker's files are in the store."""
    checkpoint = Checkpoint(step, num_workers, folder, tuple(files))
    manifest = {"step": step, "num_workers": num_workers, "files": [list(f) for f in files]}
    store.put(f"{folder}/{_MANIFEST}", json.dumps(manifest, indent=1).encode())
    return checkpoint


def list_checkpoints(store: Store, stage_folder: str) -> list[Checkpoint]:
    """Return the whole checkpoints of a stage, the newest first."""
    found: list[Checkpoint] = []
    for entry in store.list(f"{stage_folder}/states/"):
        if entry.key.endswith("/" + _MANIFEST):
            data = json.loads(store.get(entry.key))
            files = tuple((name, size, digest) for name, size, digest in data["files"])
            folder = entry.key.removesuffix("/" + _MANIFEST)
            found.append(Checkpoint(data["step"], data["num_workers"], folder, files))
    return sorted(found, key=lambda c: -c.step)


def download_checkpoint(store: Store, checkpoint: Checkpoint, target: Path) -> str | None:
    """Fetch a checkpoint's files and check them.

    Returns:
        What is wrong with it, if anything: it must not be loaded then.
    """
    for name, size, digest in checkpoint.files:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.download(f"{checkpoint.folder}/{name}", path)
        except MissingKey:
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, not {size}"
        if file_hash(path) != digest:
            return f"{name} does not match its SHA-256"
    return None


def delete_checkpoint(store: Store, checkpoint: Checkpoint) -> None:
    """Remove a checkpoint, its manifest first, so that no half of one is ever whole."""
    store.delete(f"{checkpoint.folder}/{_MANIFEST}")
    for name, _, _ in checkpoint.files:
        store.delete(f"{checkpoint.folder}/{name}")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
