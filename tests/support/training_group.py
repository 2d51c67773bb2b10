"""One group of training workers for several tasks: libraries are loaded once for all of them.

Run as a script it is one worker: `python training_group.py JOB.pickle`. Before each export the
engine's own logits for fixed tokens are kept, as `engine.npy` in the task's folder.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgd_ray.processes import free_port
from cgd_ray.training.environment import worker_environment
from cgd_ray.training.task import TrainTask

LIMIT_S = 240


def train_all(tasks: Sequence[TrainTask], num_workers: int, probe: Sequence[int]) -> str:
    """Train one task after another on the same workers; return what the first worker printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.pickle"
        path.write_bytes(pickle.dumps((list(tasks), list(probe))))
        common = {
            **os.environ,
            **worker_environment(on_gpu=False),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(num_workers),
        }
        workers = [
            subprocess.Popen(
                [sys.executable, __file__, str(path)],
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(num_workers)
        ]
        try:
            outputs = [worker.communicate(timeout=LIMIT_S)[0] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output[-3000:]
    return outputs[0]


def engine_probe(task: TrainTask) -> np.ndarray:
    """Return the training engine's logits for the probe, before the export, (T, V)."""
    return np.load(Path(task.root) / task.folder / "engine.npy")


def _keep_logits(engine: Any, task: TrainTask, probe: Sequence[int]) -> None:
    import torch
    import torch.distributed as dist

    ids = torch.tensor([probe])
    engine.eval()
    with torch.no_grad():
        logits = engine(
            input_ids=ids,
            position_ids=torch.arange(len(probe))[None],
            document_lengths=[len(probe)],
            use_cache=False,
        ).logits
    if dist.get_rank() == 0:
        np.save(Path(task.root) / task.folder / "engine.npy", logits[0].float().numpy())


def main(job: str) -> None:
    import torch.distributed as dist

    from cgd_ray.training import loop

    tasks, probe = pickle.loads(Path(job).read_bytes())
    export_model = loop.export_model

    def probed(engine: Any, store: Any, task: TrainTask) -> None:
        _keep_logits(engine, task, probe)
        export_model(engine, store, task)

    loop.export_model = probed
    dist.init_process_group("gloo")
    for task in tasks:
        loop.train_loop(task)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
