"""The verb that serves models until it is told to stop."""

import signal
from contextlib import ExitStack
from pathlib import Path

from cgd_ray.noise import say
from cgd_ray.pipeline.models import trained_model
from cgd_ray.pipeline.run import opened
from cgd_ray.processes import require_free_port
from cgd_ray.runtime import ray_session
from cgd_ray.serving.exposure import exposure_lines, require_guard
from cgd_ray.serving.models import STUDENT, served_models
from cgd_ray.serving.server import served
from cgd_ray.settings import Settings
from cgd_ray.student import student_source


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM; answers under way are finished first.

    Raises:
        UserError: the port is taken, others can reach it and no API key is set, or the run has no
            trained student.
    """
    keys = require_guard(settings.serve)
    require_free_port(settings.serve.host, settings.serve.port, "serve.port")
    # Blocked before Ray's threads exist, so that only the wait below receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with ExitStack() as stack:
        if STUDENT in settings.serve.models.values():
            ctx = stack.enter_context(opened(settings))
        models = served_models(
            settings.serve.models,
            lambda: student_source(settings.student.model, Path(settings.run.work_dir)),
            lambda: trained_model(ctx),
        )
        say("starting the engines ...")
        stack.enter_context(ray_session(settings.run.num_cpus))
        base_url = stack.enter_context(served(settings, models))
        names = " and ".join(name for model in models for name in model.ids)
        for line in exposure_lines(settings.serve, len(keys)):
            say(line)
        say(f"serving {names} at {base_url} (Ctrl-C stops)")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        say("stopping ...")
