"""A run's artefacts for those who only look, beside a run that may be at work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgd_ray.local_servers import local_servers
from cgd_ray.pipeline.context import RunContext, open_context
from cgd_ray.settings import Settings
from cgd_ray.store import LocalStore, open_store

_PATIENCE_S = 10.0  # with a store that is away: its server may have ended with the run


@contextmanager
def reading(settings: Settings) -> Iterator[RunContext]:
    """Hold a run's artefacts for the length of the block; nothing is written.

    Raises:
        UserError: the store or a prompt file cannot be read.
    """
    data = Path(settings.run.work_dir) / "s3"
    if settings.local.s3_server and not data.is_dir():
        # Its store was never made, and reading must not make it.
        yield open_context(settings, LocalStore(str(data)))
        return
    with local_servers(settings, join=True):
        store = open_store(settings.run.root, _PATIENCE_S)
        store.check("run.root")
        yield open_context(settings, store)
