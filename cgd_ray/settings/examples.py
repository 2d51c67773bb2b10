"""From chains to packed batches: what training may use and how it is laid out."""

from typing import Literal, get_args

from pydantic import Field

from cgd_ray.settings.base import Section

Objective = Literal["sft", "distilled_sft", "cft", "cgd"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


class CurationSettings(Section):
    """Which chains training may use. Rejected rows are kept, with their reason."""

    require_correct_refinement: bool = True
    """Reject rows whose refinement does not reach the reference."""
    require_wrong_draft: bool = False
    """Reject rows whose draft was right already."""
    num_processes: int = Field(default=2, ge=1)
    """Processes that grade answers."""


class ExampleSettings(Section):
    """Training documents: context without loss, target with loss."""

    objective: Objective = "cgd"
    """`sft` x -> y, `distilled_sft` x -> y^, `cft` x, y' -> c, `cgd` x, y', c -> y^."""
    prompt_only_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of all examples that are plain x -> y^, added beside the objective's own: 0.5 adds one
    for every example. It bridges the gap between the context of training and that of inference."""


class PackingSettings(Section):
    """Examples laid end to end, with no attention across them."""

    sequence_length: int = Field(default=2048, ge=16)
    """Most tokens in one packed batch; a longer example is rejected with a reason."""
    max_documents: int | None = Field(default=None, ge=1)
    """Most examples in one packed batch; 1 turns packing off; None: no limit."""
