"""Where the figures of each step go: the store, and the trackers that the settings name.

Rank 0 alone writes; on the others everything here does nothing. A tracker's package is imported
when it is used.
"""

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, Self

from cgd_ray.errors import UserError
from cgd_ray.store import Store
from cgd_ray.training.metrics import MetricsWriter, StepMetrics
from cgd_ray.training.task import TrainTask

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
_UPLOAD_EVERY_S = 60.0


class Tracker(Protocol):
    """One service that shows a run's curves."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take one step's figures by name."""
        ...

    def close(self) -> None:
        """Hand over what is left."""
        ...


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is missing.

    Raises:
        UserError: the message says what to install.
    """
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise UserError(
                f"train.trackers names {name}, which is not installed: `pip install "
                f"{_PACKAGES[name]}` on every machine, or leave it out"
            )


def tracked_values(metrics: StepMetrics) -> dict[str, float]:
    """Return the figures of a step by the names that trackers show; unknown ones are left out."""
    values = asdict(metrics) | {
        "tokens_per_second": metrics.num_tokens / metrics.seconds,
        "target_tokens_per_second": metrics.num_targets / metrics.seconds,
        "data_wait_share": metrics.data_wait_s / metrics.seconds,
    }
    return {f"train/{name}": v for name, v in values.items() if name != "step" and v is not None}


class Tracking:
    """The figures of a run's steps, to the store and to each tracker.

    Args:
        task: what is trained.
        store: of the run.
        active: whether this worker writes.

    Raises:
        UserError: a tracker's package is missing.
    """

    def __init__(self, task: TrainTask, store: Store, *, active: bool) -> None:
        self._writer = MetricsWriter(store, task.folder)
        self._active = active
        self._trackers: list[Tracker] = []
        if active:
            check_trackers(task.train.trackers)
            self._trackers = [_OPEN[name](task, store) for name in task.train.trackers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        for tracker in self._trackers:
            tracker.close()

    def add(self, metrics: StepMetrics) -> None:
        """Take one step's figures."""
        if self._active:
            self._writer.add(metrics)
        for tracker in self._trackers:
            tracker.log(metrics.step, tracked_values(metrics))

    def flush(self) -> None:
        """Write to the store what is waiting."""
        self._writer.flush()


class TensorBoard:
    """An event file, written locally and copied to `<stage>/tensorboard` every minute."""

    def __init__(self, task: TrainTask, store: Store) -> None:
        self._store, self._prefix = store, f"{task.folder}/tensorboard"
        self._folder = tempfile.TemporaryDirectory(prefix="cgd-tensorboard-")
        self._writer: Any = None
        self._uploaded = time.monotonic()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take one step's figures by name."""
        if self._writer is None:
            writing = importlib.import_module("tensorboardX")
            # A resumed run repeats steps: TensorBoard drops what an earlier file says of them.
            # The suffix keeps the files of two starts in one second apart.
            suffix = f".{time.time_ns()}"
            self._writer = writing.SummaryWriter(
                self._folder.name, purge_step=step, filename_suffix=suffix
            )
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        if time.monotonic() - self._uploaded >= _UPLOAD_EVERY_S:
            self._upload()

    def close(self) -> None:
        """Hand over what is left."""
        if self._writer is not None:
            self._upload()
            self._writer.close()
        self._folder.cleanup()

    def _upload(self) -> None:
        self._writer.flush()
        _upload_tree(self._store, Path(self._folder.name), self._prefix)
        self._uploaded = time.monotonic()


class WandB:
    """A run of Weights & Biases, resumed by name; account and mode as `WANDB_*` say.

    With `WANDB_MODE=offline` its files go to `<stage>/wandb`, for `wandb sync`.
    """

    def __init__(self, task: TrainTask, store: Store) -> None:
        name = run_name(task)
        self._store, self._prefix = store, f"{task.folder}/wandb"
        self._folder = tempfile.TemporaryDirectory(prefix="cgd-wandb-")
        self._run: Any = importlib.import_module("wandb").init(
            project=task.train.tracking_project,
            id=name,
            name=name,
            resume="allow",
            dir=self._folder.name,
            config=task.train.model_dump(mode="json"),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take one step's figures by name."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Hand over what is left."""
        self._run.finish()
        for folder in Path(self._folder.name).glob("wandb/offline-run-*"):
            _upload_tree(self._store, folder, f"{self._prefix}/{folder.name}")
        self._folder.cleanup()


class MLflow:
    """A run of MLflow, found again by name; the server is the one of `MLFLOW_TRACKING_URI`."""

    def __init__(self, task: TrainTask, _store: Store) -> None:
        client: Any = importlib.import_module("mlflow").MlflowClient()
        project, name = task.train.tracking_project, run_name(task)
        experiment = client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else client.create_experiment(project)
        earlier = client.search_runs([number], f"attributes.run_name = '{name}'", max_results=1)
        run = earlier[0] if earlier else client.create_run(number, run_name=name)
        self._client, self._id = client, run.info.run_id
        if not earlier:  # parameters cannot be changed
            for setting, value in task.train.model_dump(mode="json").items():
                client.log_param(self._id, setting, value)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take one step's figures by name."""
        metric = importlib.import_module("mlflow.entities").Metric
        now_ms = time.time_ns() // 1_000_000
        metrics = [metric(name, value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics, synchronous=False)

    def close(self) -> None:
        """Hand over what is left."""
        self._client.set_terminated(self._id)


def _upload_tree(store: Store, folder: Path, prefix: str) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        store.upload(path, f"{prefix}/{path.relative_to(folder).as_posix()}")


def run_name(task: TrainTask) -> str:
    """Return the name under which trackers show a training: that of its folder."""
    return task.folder.rpartition("/")[2]


_OPEN: dict[str, Callable[[TrainTask, Store], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}
