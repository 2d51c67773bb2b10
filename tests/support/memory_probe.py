"""What training really keeps in memory, tensor by tensor: one worker of `probe_states`.

Run as a script it is one worker: `python memory_probe.py MODEL_FOLDER DTYPE STAGE...`; the first
worker prints a line of JSON.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cgd_ray.processes import free_port
from cgd_ray.training.environment import worker_environment

LIMIT_S = 180
_BUCKET = 500_000_000  # values; DeepSpeed's default


def probe_states(model: Path, dtype: str, num_workers: int, stages: list[int]) -> dict[int, Any]:
    """Return per ZeRO stage the bytes that the first worker holds at three moments of a step."""
    port = free_port()
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(model), dtype, *map(str, stages)],
            env={
                **os.environ,
                **worker_environment(on_gpu=False),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_workers),
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_workers)
    ]
    outputs = [worker.communicate(timeout=LIMIT_S) for worker in workers]
    for worker, (_, errors) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, errors[-3000:]
    found = json.loads(outputs[0][0].strip().splitlines()[-1])
    return {int(stage): moments for stage, moments in found.items()}


def held_bytes() -> tuple[int, int]:
    """Return the bytes of all tensors in this process, and of exchange buckets beside them."""
    import torch

    gc.collect()
    storages: dict[int, int] = {}
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    # A gradient that Python never looked at is no object yet.
    gradients = [t.grad for t in tensors if t.is_leaf and t.grad is not None]
    for tensor in (*tensors, *gradients):
        if tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    buckets = [n for n in storages.values() if n in (2 * _BUCKET, 4 * _BUCKET)]
    return sum(storages.values()) - sum(buckets), sum(buckets)


def measure(source: str, dtype: str, stage: int) -> dict[str, tuple[int, int]]:
    import torch

    from cgd_ray.settings import TrainSettings
    from cgd_ray.training.batch import BatchTensors
    from cgd_ray.training.engine import build_engine, training_device
    from cgd_ray.training.loss import target_loss_sum
    from cgd_ray.training.task import TrainTask

    workers = int(os.environ["WORLD_SIZE"])
    train = TrainSettings(
        dtype=dtype, zero_stage=stage, num_workers=workers, batches_per_step=workers
    )
    task = TrainTask(train, 1, source, "", "", "", "", False, 1)
    engine = build_engine(task, training_device(task))
    ids = torch.arange(16)
    batch = BatchTensors(ids[None], ids[None], ids[:-1], ids[1:], [16])
    found: dict[str, tuple[int, int]] = {}

    def step(*, look: bool) -> None:
        loss = target_loss_sum(engine, batch)
        engine.backward(loss * 1.0, scale_wrt_gas=False)
        del loss
        if look:
            found["after_backward"] = held_bytes()
            inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
            inner.register_step_pre_hook(lambda *_: found.update(update=held_bytes()))
        engine.step()
        if look:
            found["after_step"] = held_bytes()

    step(look=False)  # AdamW's moments exist after it
    # The embedding's gradient comes last, when all others are there.
    first = engine.module.get_input_embeddings().weight
    first.register_hook(lambda _: found.update(backward=held_bytes()))
    step(look=True)
    engine.destroy()
    return found


def main(source: str, dtype: str, *stages: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    found = {stage: measure(source, dtype, int(stage)) for stage in stages}
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
