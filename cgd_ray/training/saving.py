"""Training states of a running engine: saved by all workers together, and loaded again."""

import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cgd_ray.store import Store
from cgd_ray.training import checkpoint as states


def save_state(engine: Any, store: Store, stage_folder: str, step: int) -> None:  # noqa: ANN401
    """Write a training state: each worker its own files, then one manifest for all."""
    folder = states.checkpoint_folder(stage_folder, step)
    with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
        engine.save_checkpoint(temporary, tag="state")
        written = states.upload_files(store, folder, Path(temporary))
    gathered: list[list[states.File]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, written)
    if dist.get_rank() == 0:
        before = states.list_checkpoints(store, stage_folder)
        files = {file[0]: file for part in gathered for file in part}
        states.commit_checkpoint(store, folder, step, len(gathered), list(files.values()))
        for old in before[1:]:
            states.delete_checkpoint(store, old)


def resume_state(engine: Any, store: Store, stage_folder: str) -> int:  # noqa: ANN401
    """Load the newest whole checkpoint that this many workers wrote; return its step, or 0."""
    for checkpoint in states.list_checkpoints(store, stage_folder):
        if checkpoint.num_workers != dist.get_world_size():
            continue
        with tempfile.TemporaryDirectory(prefix="cgd-state-") as temporary:
            wrong = states.download_checkpoint(store, checkpoint, Path(temporary))
            verdicts: list[str | None] = [None] * dist.get_world_size()
            dist.all_gather_object(verdicts, wrong)
            if any(verdicts):
                continue
            engine.load_checkpoint(temporary, tag="state")
        return checkpoint.step
    return 0
