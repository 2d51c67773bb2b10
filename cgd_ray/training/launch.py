"""Start the loop on Ray Train workers and watch it from the store.

The loop's module is imported by the workers alone: the driver needs no DeepSpeed.
"""

import importlib
import threading
from collections.abc import Callable
from pathlib import Path

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from cgd_ray.store import Store
from cgd_ray.training.metrics import MetricsReader, StepMetrics
from cgd_ray.training.task import TrainTask

_WATCH_S = 3.0


def launch(
    task: TrainTask,
    store: Store,
    work_dir: Path,
    watch: Callable[[list[StepMetrics]], None],
) -> None:
    """Train to the end on `num_workers` workers; lost workers are restarted.

    Args:
        task: what the workers are told.
        store: the same store that the task names.
        work_dir: where Ray Train keeps its own notes.
        watch: is called every few seconds with the steps so far.
    """
    environment = {} if task.on_gpu else {"DS_ACCELERATOR": "cpu"}
    trainer = TorchTrainer(
        lambda: importlib.import_module("cgd_ray.training.loop").train_loop(task),
        torch_config=TorchConfig(backend="nccl" if task.on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=task.train.num_workers,
            use_gpu=task.on_gpu,
            resources_per_worker=None if task.on_gpu else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=task.folder,
            storage_path=str((work_dir / "ray_train").resolve()),
            failure_config=FailureConfig(max_failures=task.train.max_failures),
            worker_runtime_env={"env_vars": environment},
        ),
    )
    done = threading.Event()
    reader = MetricsReader(store, task.folder)

    def watcher() -> None:
        while not done.wait(_WATCH_S):
            watch(reader.read())

    thread = threading.Thread(target=watcher, name="training-progress", daemon=True)
    thread.start()
    try:
        trainer.fit()
    finally:
        done.set()
        thread.join()
    watch(reader.read())
