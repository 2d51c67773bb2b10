"""The environment variables that a training worker's process is started with."""

from cgd_ray.allocator import allocator_environment


def worker_environment(*, on_gpu: bool) -> dict[str, str]:
    """Return what a training worker needs in its environment from its start.

    Args:
        on_gpu: whether it trains there.
    """
    return {} if on_gpu else {"DS_ACCELERATOR": "cpu", **allocator_environment()}
