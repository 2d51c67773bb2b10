"""Start a local Ray, or join the cluster that the job was submitted to."""

import logging
import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
import ray.exceptions
from ray.data import DataContext
from ray.train import TrainingFailedError

from cgd_ray.errors import UserError
from cgd_ray.placement import Role, label_selector
from cgd_ray.processes import route_sigterm
from cgd_ray.submission.token import keep_token_private
from cgd_ray.watching.export import exported_to
from cgd_ray.watching.meters import RunMeters

_LOCAL_CPUS = 8
# A served answer passes three of Ray Serve's processes: fewer threads to hand it on between, and a
# controller that looks around twice a second, not ten times (docs/serving.md, "Speed").
_SERVE_ON_FEW_CORES = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
}


@contextmanager
def ray_session(num_cpus: int | None) -> Iterator[None]:
    """Hold a Ray session for the length of the block.

    Inside a submitted job, or where `RAY_ADDRESS` is set, it joins that cluster; else it starts a
    local one and ends it. An existing session is used as it is.

    Args:
        num_cpus: logical CPUs of a local Ray; None takes the machine's, and at least 8.

    Raises:
        UserError: a worker failed for good; one line that says where the logs are.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would run its workers at niceness 15, last in line for a small machine's cores: beside
    # anything else that computes, training came down to a tenth of its speed.
    os.environ.setdefault("RAY_worker_niceness", "0")
    for name, value in _SERVE_ON_FEW_CORES.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        keep_token_private(os.environ, Path.home())  # Ray turns token authentication on by itself
        ray.init(
            address="local",
            num_cpus=num_cpus or max(_LOCAL_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    route_sigterm()  # Ray has just taken it for itself
    _quiet_data()
    try:
        with exported_to(RunMeters().take):
            yield
    except (ray.exceptions.RayError, TrainingFailedError) as error:
        traceback.print_exc()  # to the log of this command
        what = str(error).strip().splitlines()[-1][:300]
        raise UserError(
            f"a Ray worker failed: {what}; what was made is kept, the same command goes on from "
            f"there; see run.work_dir/logs and {_session_logs()}"
        ) from error
    finally:
        ray.shutdown()


def session_address() -> str:
    """Return what other processes set `RAY_ADDRESS` to, to join this session."""
    return ray.get_runtime_context().gcs_address


def use_gpu(accelerator: str) -> bool:
    """Return what an `accelerator` setting means in this session.

    Args:
        accelerator: "cpu", "gpu", or "auto": a GPU if any node has one.
    """
    if accelerator == "auto":
        return ray.cluster_resources().get("GPU", 0) > 0
    return accelerator == "gpu"


def place(role: Role) -> dict[str, str] | None:
    """Return the labels that a role's actors and tasks ask for in this session, if any."""
    return label_selector(role, (node["Labels"] for node in ray.nodes() if node["Alive"]))


def _session_logs() -> str:
    """Return the folder where this session's workers and engines write their logs."""
    return str(Path(tempfile.gettempdir()) / "ray" / "session_latest" / "logs")


def _quiet_data() -> None:
    """Keep Ray Data's own bars and plans off the terminal: ours is the one live line."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
