"""From chains to packed batches: what training may use and how it is laid out."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from cgd_ray.settings.base import Section

Objective = Literal["sft", "distilled_sft", "cft", "cgd", "cgd_no_critique", "cgd_no_draft"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
CritiqueTransform = Literal[
    "none", "shuffled", "generic", "truncated", "verdict_flipped", "wrong_step", "random_text"
]
TooLong = Literal["reject", "cut_draft", "cut_target"]
Leakage = Literal["keep", "mask", "regenerate", "drop"]

_WITH_CRITIQUE: tuple[Objective, ...] = ("cgd", "cgd_no_draft")


class CurationSettings(Section):
    """Which chains training may use. Rejected rows are kept, with their reason."""

    require_correct_refinement: bool = True
    """Reject rows whose refinement does not reach the reference."""
    require_wrong_draft: bool = False
    """Reject rows whose draft was right already."""
    leakage: Leakage = "keep"
    """What becomes of a critique that states the answer, where neither prompt nor draft does: it is
    kept, the answer in it is replaced by `[hidden]`, the teacher is asked for another one (and the
    row is rejected if that leaks too), or its row is rejected. Prompts without a reference are kept
    as they are."""
    min_specificity: float = Field(default=0.0, ge=0, le=1)
    """Reject rows with a critique of which a smaller share of words is about its own draft;
    0 rejects none. `cgd audit` shows how specific a run's critiques are."""
    require_true_verdict: bool = False
    """Reject rows whose critique calls a wrong draft right or a right one wrong; one that says
    neither is kept."""
    num_processes: int = Field(default=2, ge=1)
    """Processes that grade answers."""

    @property
    def judges_critiques(self) -> bool:
        """Whether a rule looks at the critique."""
        rules = self.leakage != "keep", self.min_specificity > 0, self.require_true_verdict
        return any(rules)


class ExampleSettings(Section):
    """Training documents: context without loss, target with loss."""

    objective: Objective = "cgd"
    """`sft` x -> y, `distilled_sft` x -> y^, `cft` x, y' -> c, `cgd` x, y', c -> y^; ablations:
    `cgd_no_critique` x, y' -> y^, `cgd_no_draft` x, c -> y^."""
    critique_transform: CritiqueTransform = "none"
    """Ablation: critiques `shuffled` between prompts, `generic`, `truncated` to their first half,
    `verdict_flipped`, `wrong_step` named, or `random_text` of as many words. A critique that a
    transform cannot be applied to is a failed row, with the reason."""
    critique_transform_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the chains whose critique is transformed."""
    prompt_only_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of all examples that are plain x -> y^, added beside the objective's own: 0.5 adds one
    for every example. It bridges the gap between the context of training and that of inference."""
    max_chains: int | None = Field(default=None, ge=1)
    """Use so many of the kept chains, drawn by run.seed; None: all."""
    on_too_long: TooLong = "reject"
    """What becomes of an example longer than packing.sequence_length: rejected with a reason, or
    the end of its draft, or of its target, cut. Cut examples are counted, and marked in the row."""

    @model_validator(mode="after")
    def _the_transform_has_a_critique(self) -> Self:
        if self.critique_transform != "none" and self.objective not in _WITH_CRITIQUE:
            raise ValueError(
                f"examples.critique_transform={self.critique_transform} needs a critique in the "
                f"context, and examples.objective={self.objective} has none: use "
                f"{' or '.join(_WITH_CRITIQUE)}"
            )
        return self


class PackingSettings(Section):
    """Examples laid end to end, with no attention across them."""

    sequence_length: int = Field(default=2048, ge=16)
    """Most tokens in one packed batch; see examples.on_too_long for longer examples."""
    max_documents: int | None = Field(default=None, ge=1)
    """Most examples in one packed batch; 1 turns packing off; None: no limit."""
