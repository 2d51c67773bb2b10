"""Training states in the store: files first, a manifest with sizes and hashes last.

A checkpoint exists when its manifest does. A file that does not match its manifest is never
loaded, and a manifest that does not match its own hash is no manifest.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgd_ray.errors import UserError
from cgd_ray.records import Checkpoint, StateFile
from cgd_ray.store import MissingKey, Store

File = tuple[str, int, str]  # name below a folder, bytes, SHA-256

_MANIFEST = "MANIFEST.json"


def checkpoint_folder(stage_folder: str, step: int, attempt: str) -> str:
    """Return where an attempt keeps the state after `step` optimiser steps.

    Attempts never write to each other's folders, so files of two cannot mix in one state.
    """
    return f"{_states(stage_folder)}step-{step:08d}-{attempt}"


def commit_checkpoint(store: Store, checkpoint: Checkpoint) -> None:
    """Declare a checkpoint whole, after every worker's files are in the store."""
    body = json.dumps(asdict(checkpoint))
    manifest = {"sha256": hashlib.sha256(body.encode()).hexdigest(), "checkpoint": body}
    store.put(f"{checkpoint.folder}/{_MANIFEST}", json.dumps(manifest).encode())


def list_checkpoints(store: Store, stage_folder: str) -> list[Checkpoint]:
    """Return the whole checkpoints of a stage, the newest first."""
    found: list[Checkpoint] = []
    for entry in store.list(_states(stage_folder)):
        if entry.key.endswith("/" + _MANIFEST):
            checkpoint = _read_manifest(store, entry.key)
            if checkpoint:
                found.append(checkpoint)
    return sorted(found, key=lambda c: -c.step)


def fetch_file(store: Store, checkpoint: Checkpoint, file: StateFile, target: Path) -> str | None:
    """Fetch one file of a checkpoint and check it.

    Returns:
        What is wrong with it, if anything: it must not be loaded then.
    """
    try:
        store.download(f"{checkpoint.folder}/{file.name}", target)
    except MissingKey:
        return f"{file.name} is missing"
    num_bytes = target.stat().st_size
    if num_bytes != file.num_bytes:
        return f"{file.name} has {num_bytes} bytes, not {file.num_bytes}"
    if file_hash(target) != file.sha256:
        return f"{file.name} does not match its SHA-256"
    return None


def require_same(checkpoint: Checkpoint, made_with: Mapping[str, Any]) -> None:
    """Refuse a state that followed from something else.

    Raises:
        UserError: names the first difference.
    """
    for name in sorted(checkpoint.made_with.keys() | made_with.keys()):
        saved, now = checkpoint.made_with.get(name), made_with.get(name)
        if saved != now:
            raise UserError(
                f"{checkpoint.folder} was saved with {name}={saved}, this run has {name}={now}: "
                "use the same, or delete the folder's `states` to begin anew"
            )


def prune(
    store: Store, stage_folder: str, keep: int, attempt: str, damaged: Collection[str] = ()
) -> None:
    """Delete all but the newest checkpoints, and what dead attempts left unfinished.

    Args:
        store: of the run.
        stage_folder: of the training.
        keep: whole checkpoints to keep.
        attempt: whose unfinished files stay.
        damaged: folders of checkpoints that turned out not to be whole.
    """
    found = [checkpoint.folder for checkpoint in list_checkpoints(store, stage_folder)]
    whole = [folder for folder in found if folder not in damaged]
    keys: dict[str, list[str]] = {}
    for entry in store.list(_states(stage_folder)):
        keys.setdefault(entry.key.rpartition("/")[0], []).append(entry.key)
    for folder, inside in keys.items():
        if folder in whole[keep:] or (folder not in whole and not folder.endswith(attempt)):
            _delete(store, inside)


def delete_checkpoints(store: Store, stage_folder: str) -> None:
    """Delete all training states of a stage, whole or not."""
    _delete(store, [entry.key for entry in store.list(_states(stage_folder))])


def upload_files(store: Store, folder: str, source: Path) -> list[File]:
    """Upload every file below a local folder; return their names, sizes and hashes."""
    files: list[File] = []
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(source).as_posix()
        store.upload(path, f"{folder}/{name}")
        files.append((name, path.stat().st_size, file_hash(path)))
    return files


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _states(stage_folder: str) -> str:
    return f"{stage_folder}/states/"


def _read_manifest(store: Store, key: str) -> Checkpoint | None:
    """Return what a manifest declares; None if it is damaged or was deleted meanwhile."""
    try:
        manifest = json.loads(store.get(key))
        body = manifest["checkpoint"]
        if hashlib.sha256(body.encode()).hexdigest() != manifest["sha256"]:
            return None
    except (MissingKey, ValueError, TypeError, KeyError, AttributeError):
        return None
    fields = json.loads(body)
    files = tuple(
        StateFile(f["name"], f["num_bytes"], f["sha256"], tuple(map(tuple, f["pieces"])))
        for f in fields.pop("files")
    )
    return Checkpoint(**fields, files=files)


def _delete(store: Store, keys: Iterable[str]) -> None:
    """Delete objects, manifests first, so that no half of a checkpoint is ever whole."""
    for key in sorted(keys, key=lambda key: not key.endswith(_MANIFEST)):
        store.delete(key)
