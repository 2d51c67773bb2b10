"""The memory allocator of processes that compute on a CPU: jemalloc in place of glibc's malloc."""

from importlib.util import find_spec
from pathlib import Path

_RAY = find_spec("ray")
# Comes with Ray's wheels for Linux.
_JEMALLOC = Path((_RAY and _RAY.origin) or "").parent / "core" / "libjemalloc.so"

# A step's tensors are those of the step before, so memory is kept for them, and cut from however
# large a piece is free. glibc's malloc gives it back to the system page by page, or, told to keep
# it, spreads over ever more of it: training steps took a quarter longer.
_SETTINGS = {
    "narenas": 1,
    "oversize_threshold": 0,
    "dirty_decay_ms": -1,
    "muzzy_decay_ms": -1,
    "lg_extent_max_active_fit": 20,
}


def allocator_environment() -> dict[str, str]:
    """Return what a process must find in its environment; nothing where Ray has no jemalloc."""
    if not _JEMALLOC.is_file():
        return {}
    settings = ",".join(f"{name}:{value}" for name, value in _SETTINGS.items())
    return {"LD_PRELOAD": str(_JEMALLOC), "MALLOC_CONF": settings}
