"""Start and stop the served application on this Ray session."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray import serve

from cgd_ray.processes import require_free_port
from cgd_ray.serving.app import ServedModel, build_application
from cgd_ray.settings import Settings

_NAME = "cgd"


@contextmanager
def served(settings: Settings, models: list[ServedModel]) -> Iterator[str]:
    """Serve models for the length of the block; yield the root of the API once they answer.

    Raises:
        UserError: the port is taken.
    """
    require_free_port(settings.serve.host, settings.serve.port, "serve.port")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    host, port = settings.serve.host, settings.serve.port
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(build_application(settings, models), name=_NAME, route_prefix="/")
        yield f"http://{host}:{port}/v1"
    finally:
        serve.shutdown()
