"""Training states of a running engine: copied at a step, uploaded while training goes on.

Each worker uploads its pieces in a thread; the threads then agree, over a process group of their
own, that all of them are done, and the first commits the manifest. The loop pays for the copy, and
waits only where the upload before has not ended.
"""

import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.records import Checkpoint, StateFile
from cgd_ray.store import Store
from cgd_ray.training import checkpoint as states
from cgd_ray.training import pieces as held
from cgd_ray.training.pieces import Piece
from cgd_ray.training.task import TrainTask

_FILE_BYTES = 256 << 20  # about: local disk that an upload needs
_UPLOAD_LIMIT = timedelta(hours=6)  # that workers wait for the slowest
_PATIENCE_S = 10.0  # for an upload under way when training fails


class TrainingStates:
    """Saves and restores the states of one training run; every worker has one.

    All methods are called by all workers together.
    """

    def __init__(self, engine: Any, store: Store, task: TrainTask) -> None:  # noqa: ANN401
        self._engine = engine
        self._store = store
        self._folder = task.folder
        self._keep = task.train.keep_checkpoints
        self._every = task.train.checkpoint_every_steps
        self._made_with = made_with(task)
        self._group = dist.new_group(backend="gloo", timeout=_UPLOAD_LIMIT)
        self._attempt: str = self._from_first(uuid.uuid4().hex[:8])
        self._thread: threading.Thread | None = None
        self._abandoned = threading.Event()
        self._outcome: tuple[str | None] | None = None  # of the last upload: done, or why not

    def __enter__(self) -> "TrainingStates":
        return self

    def __exit__(self, *_: object) -> None:
        # After a failure elsewhere: what is nearly in the store is worth a moment.
        if self._thread:
            self._thread.join(_PATIENCE_S)
        self._abandoned.set()

    @property
    def failed(self) -> bool:
        """Whether the last upload ended badly: training should stop."""
        ended = self._thread is not None and not self._thread.is_alive()
        return ended and self._outcome != (None,)

    def due(self, step: int, num_steps: int) -> bool:
        """Return whether a state is saved after so many steps of so many."""
        return step % self._every == 0 and step < num_steps

    def save(self, step: int) -> None:
        """Copy the state and begin to upload it; the upload before must have ended well.

        Raises:
            UserError: the upload before failed, on any worker.
        """
        self.finish()
        copies = [piece.copy() for piece in held.pieces_to_save(self._engine)]
        snapshot = _Snapshot(step, held.optimizer_step(self._engine), copies)
        self._outcome = None
        self._thread = threading.Thread(
            target=self._upload, args=(snapshot,), name="training-state", daemon=True
        )
        self._thread.start()

    def finish(self) -> None:
        """Wait for the upload under way.

        Raises:
            UserError: it failed, on any worker: all raise the same.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if self._outcome is None:
            raise RuntimeError("the upload of a training state broke off")
        (error,) = self._outcome
        if error:
            raise UserError(error)

    def resume(self) -> int:
        """Load the newest whole checkpoint; return its step, or 0 where there is none.

        Raises:
            UserError: it was saved with other settings.
        """
        for checkpoint in self._from_first(states.list_checkpoints(self._store, self._folder)):
            states.require_same(checkpoint, self._made_with)
            mine = held.held_pieces(self._engine)
            staged, wrong = _fetch_pieces(self._store, checkpoint, mine)
            verdicts = self._from_all(wrong)
            if not any(verdicts):
                for piece, loaded in zip(mine, staged, strict=True):
                    for kind, tensor in piece.tensors.items():
                        tensor.copy_(loaded.tensors[kind])
                held.set_optimizer_step(self._engine, checkpoint.optimizer_step)
                held.weights_follow(self._engine)
                return checkpoint.step
            if dist.get_rank() == 0:
                reason = next(verdict for verdict in verdicts if verdict)
                say(f"{checkpoint.folder} is damaged and passed over: {reason}")
        return 0

    def delete(self) -> None:
        """Delete all states, once the trained model is in the store."""
        if dist.get_rank() == 0:
            states.delete_checkpoints(self._store, self._folder)

    def _upload(self, snapshot: "_Snapshot") -> None:
        """Upload this worker's pieces, agree that all are done, commit. Runs in the thread."""
        folder = states.checkpoint_folder(self._folder, snapshot.step, self._attempt)
        error, files = None, []
        try:
            files = self._upload_pieces(folder, snapshot.pieces)
        except (UserError, OSError) as problem:
            error = self._in_words(snapshot.step, problem)
        parts = self._from_all((error, files))
        error = next((why for why, _ in parts if why), None)
        if error is None and dist.get_rank() == 0:
            checkpoint = Checkpoint(
                folder=folder,
                step=snapshot.step,
                optimizer_step=snapshot.optimizer_step,
                num_workers=len(parts),
                made_with=self._made_with,
                files=tuple(file for _, part in parts for file in part),
            )
            try:
                states.commit_checkpoint(self._store, checkpoint)
                states.prune(self._store, self._folder, self._keep, self._attempt)
            except (UserError, OSError) as problem:
                error = self._in_words(snapshot.step, problem)
        self._outcome = (self._from_first(error),)

    def _upload_pieces(self, folder: str, copies: list[Piece]) -> list[StateFile]:
        files: list[StateFile] = []
        with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
            for number, some in enumerate(_files_worth(copies)):
                if self._abandoned.is_set():
                    raise UserError("training had failed")
                name = f"worker-{dist.get_rank():05d}-{number:05d}.safetensors"
                path = Path(temporary) / name
                save_file({_key(p, k): t for p in some for k, t in p.tensors.items()}, path)
                self._store.upload(path, f"{folder}/{name}")
                inside = tuple((p.name, p.start, p.length) for p in some)
                size, digest = path.stat().st_size, states.file_hash(path)
                files.append(StateFile(name, size, digest, inside))
                path.unlink()
        return files

    def _in_words(self, step: int, problem: Exception) -> str:
        return (
            f"the state after step {step} could not be saved ({problem}): make room in run.root="
            f"{self._store.root} and {tempfile.gettempdir()}; the state before it is whole, and "
            "the same command goes on from there"
        )

    def _from_all(self, value: Any) -> list[Any]:  # noqa: ANN401
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _from_first(self, value: Any) -> Any:  # noqa: ANN401
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One worker's copy of its part of the state after a step."""

    step: int
    optimizer_step: float
    pieces: list[Piece]


def made_with(task: TrainTask) -> dict[str, Any]:
    """Return what a state follows from: another run of the same may take it up."""
    train = task.train.model_dump(mode="json", exclude=set(task.train.SPEED_ONLY))
    return {
        "examples": task.examples_folder,
        "student": task.source.rstrip("/").rpartition("/")[2],
        "run.seed": task.seed,
        **{f"train.{name}": value for name, value in train.items()},
    }


def _fetch_pieces(
    store: Store, checkpoint: Checkpoint, mine: Sequence[Piece]
) -> tuple[list[Piece], str | None]:
    """Return the saved values of a worker's pieces, in memory, and what is wrong with them.

    Only files that hold a part of them are fetched, one at a time.
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
            wrong = states.fetch_file(store, checkpoint, file, path)
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
