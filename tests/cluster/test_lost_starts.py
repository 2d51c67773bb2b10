"""Workers lost in the last second of a start; a real cluster, trainer and process group."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util import placement_group_table

from cgd_ray.runtime import ray_session
from cgd_ray.training.lost_starts import Trainer, fit_past_lost_starts


class _LoseOne(WorkerGroupCallback):
    """Kills a worker of the first groups."""

    def __init__(self, starts: Path, num_lost: int) -> None:
        self._starts, self._num_lost = starts, num_lost

    def after_worker_group_start(self, worker_group: Any) -> None:
        number = len(list(self._starts.iterdir()))
        (self._starts / str(number)).touch()
        if number < self._num_lost:
            ray.kill(worker_group.get_workers()[-1].actor)


class _LosesBefore(Trainer):
    """Puts the losses of a run's callbacks before all that Ray Train does with its workers."""

    def _create_default_callbacks(self) -> Any:
        ours, *others, loss = super()._create_default_callbacks()
        return [ours, loss, *others]


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    """Room for one start at a time: a start that keeps its resources has no successor."""
    with ray_session(2):
        yield


def num_starts(folder: Path, kind: type[Trainer], num_lost: int, max_failures: int) -> int:
    """Train while the first starts lose a worker; return how many starts it took."""
    starts, done = folder / "starts", folder / "done"
    starts.mkdir()

    def trainer() -> Trainer:
        return kind(
            done.touch,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name="lost",
                storage_path=str(folder / "ray_train"),
                failure_config=FailureConfig(max_failures=max_failures),
                callbacks=[_LoseOne(starts, num_lost)],  # pyright: ignore[reportArgumentType]
            ),
        )

    # In the main thread Ray Train would take Ctrl-C for itself, and keep it.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fit_past_lost_starts, trainer, max_failures).result()
    assert done.exists()
    return len(list(starts.iterdir()))


@pytest.mark.parametrize("kind", [Trainer, _LosesBefore])
def test_a_worker_lost_as_it_begins_costs_one_start(tmp_path: Path, kind: type[Trainer]) -> None:
    """Lost as it is handed the loop, or as the process group is made."""
    assert num_starts(tmp_path, kind, num_lost=1, max_failures=1) == 2


def test_more_losses_than_max_failures_end_training_and_keep_nothing(tmp_path: Path) -> None:
    with pytest.raises(ControllerError) as raised:
        num_starts(tmp_path, Trainer, num_lost=9, max_failures=1)
    assert isinstance(raised.value.controller_failure, RayActorError)
    assert len(list((tmp_path / "starts").iterdir())) == 2
    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
