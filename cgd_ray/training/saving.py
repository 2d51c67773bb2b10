"""Training states of a running engine: copied at a step, uploaded while training goes on.

In each worker a thread hands the pieces to a process that uploads them; the threads then agree,
over a process group of their own, that all are done, and the first commits the manifest. The loop
pays for the copy, and waits only where the upload before has not ended.
"""

import tempfile
import threading
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from safetensors import SafetensorError

from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.records import Checkpoint
from cgd_ray.store import Store
from cgd_ray.training import checkpoint as states
from cgd_ray.training import pieces as held
from cgd_ray.training.pieces import Piece
from cgd_ray.training.state_files import fetch_pieces, upload_pieces
from cgd_ray.training.task import TrainTask
from cgd_ray.training.uploader import Uploader

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
        self._group: Any = dist.new_group(backend="gloo", timeout=_UPLOAD_LIMIT)
        self._attempt: str = self._from_first(uuid.uuid4().hex[:8])
        self._uploader: Uploader | None = None
        self._damaged: list[str] = []
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
        if self._uploader:
            self._uploader.close()

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
        self._uploader = self._uploader or Uploader(self._store.root)
        self._thread = threading.Thread(
            target=self._upload,
            args=(snapshot, self._uploader),
            name="training-state",
            daemon=True,
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
            staged, wrong = fetch_pieces(self._store, checkpoint, mine)
            verdicts = self._from_all(wrong)
            if not any(verdicts):
                for piece, loaded in zip(mine, staged, strict=True):
                    for kind, tensor in piece.tensors.items():
                        tensor.copy_(loaded.tensors[kind])
                held.set_optimizer_step(self._engine, checkpoint.optimizer_step)
                held.weights_follow(self._engine)
                return checkpoint.step
            self._damaged.append(checkpoint.folder)
            if dist.get_rank() == 0:
                reason = next(verdict for verdict in verdicts if verdict)
                say(f"{checkpoint.folder} is damaged and passed over: {reason}")
        return 0

    def delete(self) -> None:
        """Delete all states, once the trained model is in the store."""
        if dist.get_rank() == 0:
            states.delete_checkpoints(self._store, self._folder)

    def _upload(self, snapshot: "_Snapshot", uploader: Uploader) -> None:
        """Upload this worker's pieces, agree that all are done, commit. Runs in the thread."""
        folder = states.checkpoint_folder(self._folder, snapshot.step, self._attempt)
        error, files = None, []
        try:
            files = upload_pieces(
                uploader, folder, snapshot.pieces, dist.get_rank(), self._abandoned
            )
        except (UserError, OSError, SafetensorError) as problem:
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
                states.prune(self._store, self._folder, self._keep, self._attempt, self._damaged)
            except (UserError, OSError) as problem:
                error = self._in_words(snapshot.step, problem)
        self._outcome = (self._from_first(error),)

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
