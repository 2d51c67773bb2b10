"""The environment variables that a training worker's process is started with."""

_ON_CPU = {
    "DS_ACCELERATOR": "cpu",  # DeepSpeed would look for others
    # glibc's malloc keeps a step's memory for the next one: else it goes back to the system at
    # the step's end and comes back page by page, a tenth of the step's time. Without its caches of
    # small chunks, which tear what an aligned tensor leaves beside it from the free memory around,
    # so that the same size never fits there again (glibc before 2.38): 54 MiB a step were lost.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in {
            "mmap_max": 0,
            "trim_threshold": 2**40,
            "top_pad": 2**26,
            "tcache_count": 0,
            "mxfast": 0,
        }.items()
    ),
}


def worker_environment(*, on_gpu: bool) -> dict[str, str]:
    """Return what a training worker needs in its environment from its start.

    Args:
        on_gpu: whether it trains there.
    """
    return {} if on_gpu else dict(_ON_CPU)
