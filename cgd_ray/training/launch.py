"""Start the loop on Ray Train workers and watch it from the store.

The loop's module is imported by the workers alone: the driver needs no DeepSpeed.

Whatever ends a worker, the workers are started again, and they go on from the newest state.
Two things end training for good: the driver is asked to stop, or a worker meets something that only
the user can mend. Both pass through the post, a small actor beside the driver.
"""

import importlib
import signal
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller.state import ResizingState, TrainControllerState
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cgd_ray.errors import UserError
from cgd_ray.noise import say
from cgd_ray.runtime import place
from cgd_ray.store import Store, StoreError
from cgd_ray.training import stopping
from cgd_ray.training.environment import worker_environment
from cgd_ray.training.lost_starts import Trainer, fit_past_lost_starts
from cgd_ray.training.metrics import MetricsReader, StepMetrics
from cgd_ray.training.task import TrainTask

_POLL_S, _WATCH_S = 0.2, 3.0
_ASK_EVERY_S = 1.0
_RESIZE_PATIENCE_S = 300.0  # for a step and a state


class _Post:
    """What driver and workers tell each other."""

    def __init__(self) -> None:
        self._began = False
        self._stop = False
        self._resize = False
        self._refusal: str | None = None

    def begin(self) -> str | None:
        """Take note that a worker is up; return why it must not train, if it must not."""
        self._began = True
        return self._refusal

    def ask_to_stop(self) -> bool:
        """Ask the workers to stop for good; return whether there are any."""
        self._stop = True
        return self._began

    def ask_to_resize(self) -> None:
        """Ask the workers to stop, because others will go on."""
        self._resize = True

    def asks(self) -> bool:
        """Return whether the workers are asked to stop, for whatever reason."""
        return self._stop or self._resize

    def stopped(self) -> bool:
        """Take note that the loop has ended, however; return whether the workers stop for good."""
        self._resize = False
        return self._stop

    def refuse(self, reason: str) -> None:
        """End training for good."""
        self._refusal = reason

    def refusal(self) -> str | None:
        """Return why training ended for good, if it did."""
        return self._refusal


class _TermIsNoEnd(WorkerCallback):
    """Lets SIGTERM ask a worker to stop; runs in its main thread, which the loop does not have."""

    def after_init_train_context(self) -> None:
        stopping.stop_on_sigterm()


class _SaveBeforeResize(ControllerCallback):
    """Lets workers save a state before Ray Train replaces them by more, or by fewer."""

    def __init__(self, post: Any) -> None:  # noqa: ANN401 - an actor
        self._post = post

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        if isinstance(current_state, ResizingState):
            ray.get(self._post.ask_to_resize.remote())
            deadline = time.monotonic() + _RESIZE_PATIENCE_S
            while ray.get(self._post.asks.remote()) and time.monotonic() < deadline:
                time.sleep(_ASK_EVERY_S / 10)
            ray.get(self._post.stopped.remote())


def launch(
    task: TrainTask,
    store: Store,
    work_dir: Path,
    watch: Callable[[list[StepMetrics]], None],
) -> None:
    """Train to the end; lost workers are restarted, on fewer nodes if `num_workers` allows.

    Args:
        task: what the workers are told.
        store: the same store that the task names.
        work_dir: where Ray Train keeps its own notes.
        watch: is called every few seconds with the steps so far.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the workers saved a state and stopped.
        UserError: training cannot go on without the user.
    """
    # Beside the driver, whose loss ends training anyway: any other node may go.
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    post: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Post).remote()
    reader = MetricsReader(store, task.folder)
    pool = ThreadPoolExecutor(1, "training")
    # In the main thread it would take Ctrl-C for itself.
    fit = pool.submit(
        fit_past_lost_starts, lambda: _trainer(task, work_dir, post), task.train.max_failures
    )
    pool.shutdown(wait=False)
    with _stop_signals() as asked:
        _watch(fit, reader, watch, asked)
        if asked.is_set():
            if not ray.get(post.ask_to_stop.remote()):
                raise KeyboardInterrupt
            say(
                "stopping after this step; once more to stop at once and lose the steps since "
                f"the last state (train.checkpoint_every_steps={task.train.checkpoint_every_steps})"
            )
            _watch(fit, reader, watch, threading.Event())
        refusal = ray.get(post.refusal.remote())
        if refusal:
            raise UserError(refusal)
        fit.result()
    watch(reader.read())
    if asked.is_set():
        raise KeyboardInterrupt


def _trainer(task: TrainTask, work_dir: Path, post: Any) -> Trainer:  # noqa: ANN401 - an actor
    train = task.train
    elastic = train.min_workers < train.max_workers
    callbacks: list[Any] = [_TermIsNoEnd(), _SaveBeforeResize(post)]  # of Ray's internal kinds
    return Trainer(
        lambda: _train(task, post),
        torch_config=TorchConfig(backend="nccl" if task.on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(train.min_workers, train.max_workers) if elastic else train.max_workers,
            use_gpu=task.on_gpu,
            resources_per_worker=None if task.on_gpu else {"CPU": 1},
            elastic_resize_monitor_interval_s=train.resize_every_s,
            label_selector=place("trainer"),
        ),
        run_config=RunConfig(
            name=task.folder,
            storage_path=str((work_dir / "ray_train").resolve()),
            failure_config=FailureConfig(max_failures=train.max_failures),
            worker_runtime_env={"env_vars": worker_environment(on_gpu=task.on_gpu)},
            callbacks=callbacks,
        ),
    )


def _train(task: TrainTask, post: Any) -> None:  # noqa: ANN401
    """Run the loop in a worker, until it is done or the driver asks it to stop."""
    if ray.get(post.begin.remote()):
        return
    try:
        loop = importlib.import_module("cgd_ray.training.loop")
        loop.train_loop(task, _stop_asked(post))
    except stopping.Stopped:
        if not ray.get(post.stopped.remote()):
            raise  # a worker goes or comes: Ray Train starts all of them again, where there is room
    except UserError as error:
        ray.get(post.refuse.remote(str(error)))
        raise
    finally:
        ray.get(post.stopped.remote())  # a loop that broke saves no state: none is waited for


def _stop_asked(post: Any) -> Callable[[], bool]:  # noqa: ANN401
    """Return what a worker asks once a step: SIGTERM, a node that is drained, or the driver."""
    first, asked = get_context().get_world_rank() == 0, 0.0

    def stop_asked() -> bool:
        nonlocal asked
        drained = get_train_context().preemption_context.preemption_info is not None
        if stopping.terminated() or drained:
            return True
        if not first or time.monotonic() - asked < _ASK_EVERY_S:
            return False
        asked = time.monotonic()
        return ray.get(post.asks.remote())

    return stop_asked


def _watch(
    fit: Future[Result],
    reader: MetricsReader,
    watch: Callable[[list[StepMetrics]], None],
    asked: threading.Event,
) -> None:
    """Show the steps until training has ended, however, or is asked to stop."""
    shown = time.monotonic()
    while not asked.is_set() and not wait([fit], _POLL_S).done:
        if time.monotonic() - shown < _WATCH_S:
            continue
        with suppress(StoreError):  # an outage of the store is the workers' business
            watch(reader.read())
        shown = time.monotonic()


@contextmanager
def _stop_signals() -> Generator[threading.Event]:
    """Yield what the first Ctrl-C or SIGTERM sets; the second one interrupts.

    An interrupt at any moment could be lost in a library's clean-up.
    """
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
