"""Start a local Ray, or join the cluster that the job was submitted to."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.data import DataContext

_LOCAL_CPUS = 8


@contextmanager
def ray_session(num_cpus: int | None) -> Iterator[None]:
    """Hold a Ray session for the length of the block.

    Inside a submitted job, or where `RAY_ADDRESS` is set, it joins that cluster; else it starts a
    local one and ends it. An existing session is used as it is.

    Args:
        num_cpus: logical CPUs of a local Ray; None takes the machine's, and at least 8.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",
            num_cpus=num_cpus or max(_LOCAL_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    _quiet_data()
    try:
        yield
    finally:
        ray.shutdown()


def cluster_has_gpus() -> bool:
    """Return whether any node of the session has a GPU."""
    return ray.cluster_resources().get("GPU", 0) > 0


def session_logs() -> str:
    """Return the folder where this session's workers and engines write their logs."""
    return str(Path(tempfile.gettempdir()) / "ray" / "session_latest" / "logs")


def _quiet_data() -> None:
    """Keep Ray Data's own bars and plans off the terminal: ours is the one live line."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
