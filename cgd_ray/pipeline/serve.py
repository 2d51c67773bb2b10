"""The verb that serves base and student until it is told to stop."""

import signal
from contextlib import ExitStack

from cgd_ray.noise import say
from cgd_ray.pipeline.models import trained_model
from cgd_ray.pipeline.run import opened
from cgd_ray.processes import require_free_port
from cgd_ray.runtime import ray_session
from cgd_ray.serving.app import served_models
from cgd_ray.serving.server import served
from cgd_ray.settings import Settings


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: the port is taken, or the run has no trained student.
    """
    require_free_port(settings.serve.host, settings.serve.port, "serve.port")
    # Blocked before Ray's threads exist, so that only the wait below receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with ExitStack() as stack:
        ctx = stack.enter_context(opened(settings))
        models = served_models(settings, trained_model(ctx))
        say("starting the engines ...")
        stack.enter_context(ray_session(settings.run.num_cpus))
        base_url = stack.enter_context(served(settings, models))
        names = " and ".join(model.id for model in models)
        say(f"serving {names} at {base_url} (Ctrl-C stops)")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        say("stopping ...")
