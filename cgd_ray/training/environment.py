"""The environment variables that a training worker's process is started with."""

from pathlib import Path

import ray

# Comes with Ray's wheels for Linux.
_JEMALLOC = Path(ray.__file__).parent / "core" / "libjemalloc.so"

# A step's tensors are those of the step before, so memory is kept for them, and cut from however
# large a piece is free. glibc's malloc gives it back to the system page by page, or, told to keep
# it, spreads over ever more of it: steps took a quarter longer (benchmarks/results/train-speed).
_JEMALLOC_SETTINGS = {
    "narenas": 1,
    "oversize_threshold": 0,
    "dirty_decay_ms": -1,
    "muzzy_decay_ms": -1,
    "lg_extent_max_active_fit": 20,
}


def worker_environment(*, on_gpu: bool) -> dict[str, str]:
    """Return what a training worker needs in its environment from its start.

    Args:
        on_gpu: whether it trains there.
    """
    return {} if on_gpu else {"DS_ACCELERATOR": "cpu", **allocator_environment()}


def allocator_environment() -> dict[str, str]:
    """Return what puts jemalloc in malloc's place; nothing where Ray came without it."""
    if not _JEMALLOC.is_file():
        return {}
    settings = ",".join(f"{name}:{value}" for name, value in _JEMALLOC_SETTINGS.items())
    return {"LD_PRELOAD": str(_JEMALLOC), "MALLOC_CONF": settings}
