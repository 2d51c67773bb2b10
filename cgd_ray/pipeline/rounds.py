"""Rounds of a run (iterated CGD): each drafts with, and trains further, the student before it."""

from cgd_ray.pipeline.context import RunContext
from cgd_ray.pipeline.models import fetched_model
from cgd_ray.student import student_source


def starting_student(ctx: RunContext) -> str:
    """Return what loads the student that this round starts from: a folder or Hugging Face id.

    Raises:
        UserError: it is no model folder, or the stored files are damaged.
    """
    if ctx.start is None:
        return student_source(ctx.settings.student.model, ctx.work_dir)
    return str(fetched_model(ctx, ctx.start))
