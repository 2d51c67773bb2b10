"""Workers that are lost while Ray Train starts them.

Ray Train (2.60) itself starts again after a loss, except in the last second of a start: a worker
that dies as it is handed the loop, or breaks the others' process group, ends training as an error
of the controller. Either way the placement group of that start is kept for good, and with it the
resources that the next start needs.
"""

import itertools
from collections.abc import Callable

from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, Result
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import TrainControllerState
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2.api.callback import RayTrainCallback

from cgd_ray.noise import say


class _GiveBack(WorkerGroupCallback, ControllerCallback):
    """Gives back what a start took that did not come to its end."""

    def __init__(self) -> None:
        self._starting: WorkerGroupState | None = None

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._starting = worker_group.get_worker_group_state()

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        self._starting = None

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        if self._starting is not None:
            self._starting.shutdown()
            self._starting = None


class Trainer(TorchTrainer):
    """Ray Train's trainer; a start that fails keeps nothing of the cluster."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        # First of all, so that it has taken note before another of them fails.
        return [_GiveBack(), *super()._create_default_callbacks()]


def fit_past_lost_starts(new_trainer: Callable[[], Trainer], max_failures: int) -> Result:
    """Train to the end, also where a worker is lost in the last second of a start.

    Not for the main thread, where Ray Train takes Ctrl-C for itself and keeps it.

    Args:
        new_trainer: makes the trainer of each attempt.
        max_failures: starts that may be lost so, beside what `FailureConfig` allows.

    Raises:
        TrainingFailedError: anything else ended training, or that did too often.
    """
    for num_lost in itertools.count(1):
        try:
            return new_trainer().fit()
        except ControllerError as error:
            by_worker = isinstance(error.controller_failure, RayActorError | RayTaskError)
            if not by_worker or num_lost > max_failures:
                raise
            say(f"a worker was lost as it began ({num_lost} of train.max_failures={max_failures})")
    raise AssertionError("a count has no end")
