"""The run's own endpoint for evaluation: base and student, for the length of a block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cgd_ray.evaluation.runner import Endpoint
from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.models import trained_model
from cgd_ray.runtime import ray_session
from cgd_ray.serving.exposure import own_key
from cgd_ray.serving.models import BASE, STUDENT, ServedModel
from cgd_ray.serving.server import served
from cgd_ray.student import student_source


@contextmanager
def own_endpoint(ctx: RunContext, wanted: Sequence[str]) -> Iterator[Endpoint]:
    """Serve models on this machine, reached from it alone.

    Args:
        ctx: of a run with a trained student.
        wanted: of base and student, those that are asked: an engine each.

    Raises:
        UserError: the run has no trained student.
    """
    base = student_source(ctx.settings.student.model, ctx.work_dir)
    both = [ServedModel(BASE, base), ServedModel(STUDENT, str(trained_model(ctx)))]
    models = [model for model in both if model.id in wanted]
    with (
        ray_session(ctx.settings.run.num_cpus),
        served(ctx.settings, models, private=True) as base_url,
    ):
        yield Endpoint(base_url, {name: name for name in wanted}, own_key(ctx.settings.serve))
