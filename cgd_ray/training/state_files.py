"""Pieces of a training state as safetensors files in the store: nothing in them is code.

Each worker's pieces fill files of a size that passes through a local disk one at a time. What each
file holds is in the manifest, so that a worker fetches only those that have a part of its pieces.
"""

import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cgd_ray.errors import UserError
from cgd_ray.records import Checkpoint, StateFile
from cgd_ray.store import Store
from cgd_ray.training.checkpoint import fetch_file
from cgd_ray.training.pieces import Piece
from cgd_ray.training.uploader import Uploader

_FILE_BYTES = 256 << 20  # about: local disk that an upload needs


def upload_pieces(
    uploader: Uploader, folder: str, copies: list[Piece], rank: int, abandoned: threading.Event
) -> list[StateFile]:
    """Upload one worker's pieces, letting go of each file's as they are in the store.

    Args:
        uploader: to the run's store.
        folder: of the checkpoint.
        copies: the pieces, in this machine's memory; empty afterwards.
        rank: of the worker.
        abandoned: set when nobody needs the state any more.

    Raises:
        UserError: the store refuses, or the upload was abandoned.
        OSError: the local disk is full.
        SafetensorError: the same, as the format's library says it.
    """
    files: list[StateFile] = []
    with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
        for number, some in enumerate(_files_worth(copies)):
            if abandoned.is_set():
                raise UserError("training had failed")
            name = f"worker-{rank:05d}-{number:05d}.safetensors"
            path = Path(temporary) / name
            save_file({_key(p, k): t for p in some for k, t in p.tensors.items()}, path)
            num_bytes, digest = uploader.send(path, f"{folder}/{name}")
            inside = tuple((p.name, p.start, p.length) for p in some)
            files.append(StateFile(name, num_bytes, digest, inside))
            path.unlink()
    return files


def fetch_pieces(
    store: Store, checkpoint: Checkpoint, mine: Sequence[Piece]
) -> tuple[list[Piece], str | None]:
    """Return the saved values of a worker's pieces, in memory, and what is wrong with them.

    Only files that hold a part of them are fetched, one at a time.

    Raises:
        UserError: the store does not answer, or the local disk is full.
    """
    staged = [Piece(p.name, p.start, {k: torch.empty(p.length) for k in p.tensors}) for p in mine]
    by_name: dict[str, list[Piece]] = {}
    for piece in staged:
        by_name.setdefault(piece.name, []).append(piece)
    num_wanted = sum(piece.length * len(piece.tensors) for piece in staged)
    with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
        path = Path(temporary) / "file.safetensors"
        for file in checkpoint.files:
            if not any(
                _overlap(piece, *at) for at in file.pieces for piece in by_name.get(at[0], ())
            ):
                continue
            try:
                wrong = fetch_file(store, checkpoint, file, path)
            except OSError as error:
                raise UserError(
                    f"{checkpoint.folder} cannot be fetched ({error}): make room in "
                    f"{tempfile.gettempdir()} or set TMPDIR"
                ) from error
            if wrong:
                return staged, wrong
            for key, values in load_file(path).items():
                kind, start, name = key.split(":", 2)
                for piece in by_name.get(name, ()):
                    num_wanted -= _take(piece, kind, int(start), values)
    return staged, "it holds other parameters than this model's" if num_wanted else None


def _take(piece: Piece, kind: str, start: int, values: torch.Tensor) -> int:
    """Copy what a saved run of elements has of a piece; return how many elements that is."""
    low = max(start, piece.start)
    length = _overlap(piece, piece.name, start, values.numel())
    into = piece.tensors[kind][low - piece.start :][:length]
    into.copy_(values[low - start :][:length])
    return length


def _overlap(piece: Piece, name: str, start: int, length: int) -> int:
    """Return how many elements of a piece a saved run holds."""
    end = min(piece.start + piece.length, start + length)
    return max(0, end - max(piece.start, start)) if name == piece.name else 0


def _files_worth(copies: list[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces by the file, letting go of each as it is asked for the next."""
    copies.reverse()
    while copies:
        some, size = [], 0
        while copies and size < _FILE_BYTES:
            some.append(copies.pop())
            size += some[-1].length * 4 * len(some[-1].tensors)
        yield some


def _key(piece: Piece, kind: str) -> str:
    return f"{kind}:{piece.start}:{piece.name}"
