"""Start and stop the served application on this Ray session."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import serve

from cgd_ray.noise import say
from cgd_ray.processes import require_free_port
from cgd_ray.serving.app import build_application
from cgd_ray.serving.exposure import require_guard
from cgd_ray.serving.models import ServedModel
from cgd_ray.settings import ServeSettings, Settings

_NAME = "cgd"


@contextmanager
def served(
    settings: Settings, models: list[ServedModel], *, private: bool = False
) -> Iterator[str]:
    """Serve models for the length of the block; yield the root of the API once they answer.

    Answers under way at the end are given `serve.drain_s` to finish.

    Args:
        settings: of the run.
        models: what is served.
        private: to this process only: on a loopback address, without TLS; what is chosen for the
            engines goes to the log alone.

    Raises:
        UserError: the port is taken, or others can reach it and no API key is set.
    """
    if private:
        own = {"host": "127.0.0.1", "tls_certfile": None, "tls_keyfile": None}
        settings = settings.model_copy(update={"serve": settings.serve.model_copy(update=own)})
    require_guard(settings.serve)
    require_free_port(settings.serve.host, settings.serve.port, "serve.port")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options=_http_options(settings.serve))
    try:
        application = build_application(settings, models, print if private else say)
        serve.run(application, name=_NAME, route_prefix="/")
        yield address(settings.serve)
    finally:
        serve.delete(_NAME)  # waits for answers under way; shutdown alone cuts them off
        serve.shutdown()


def address(s: ServeSettings) -> str:
    """Return the root of the API as this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(s.host, s.host)
    return f"{'https' if s.tls_certfile else 'http'}://{host}:{s.port}/v1"


def _http_options(s: ServeSettings) -> dict[str, Any]:
    return {
        "host": s.host,
        "port": s.port,
        "ssl_certfile": s.tls_certfile,
        "ssl_keyfile": s.tls_keyfile,
        # The gateway's own limits come first; this one ends what hangs before it or behind it.
        "request_timeout_s": s.body_timeout_s + s.request_timeout_s + 5,
    }
