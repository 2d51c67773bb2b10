"""Refinements and drafts against the reference, and the rules for what training may use."""

from collections.abc import Mapping, Sequence

from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.records import CuratedRow, Draft, Prompt, Refinement
from cgd_ray.settings import CurationSettings


def verify(
    prompts: Mapping[str, Prompt],
    drafts: Mapping[str, Draft],
    refinements: Mapping[str, Refinement],
    settings: CurationSettings,
) -> list[CuratedRow]:
    """Grade every refined chain and decide whether it is used.

    Args:
        prompts: by prompt id.
        drafts: by draft id.
        refinements: by draft id; each draft in it is judged.
        settings: the rules.
    """
    graded = [d for d in refinements if prompts[drafts[d].prompt_id].reference is not None]
    items = [
        GradeItem(prompts[drafts[d].prompt_id].reference or "", text)
        for d in graded
        for text in (drafts[d].text, refinements[d].text)
    ]
    with GraderPool(settings.num_processes) as pool:
        grades = pool.grade_all(items)
    verdicts = {d: (grades[2 * i].correct, grades[2 * i + 1].correct) for i, d in enumerate(graded)}
    return [_judge(drafts[d], verdicts.get(d), settings) for d in refinements]


def _judge(
    draft: Draft, verdict: tuple[bool, bool] | None, settings: CurationSettings
) -> CuratedRow:
    draft_correct, refinement_correct = verdict or (None, None)
    return CuratedRow(
        draft_id=draft.id,
        prompt_id=draft.prompt_id,
        draft_correct=draft_correct,
        refinement_correct=refinement_correct,
        rejected=rejection(draft_correct, refinement_correct, settings),
    )


def rejection(
    draft_correct: bool | None, refinement_correct: bool | None, settings: CurationSettings
) -> str | None:
    """Return the reason for which a chain is not used; None if it is."""
    if settings.require_correct_refinement and refinement_correct is None:
        return "no_reference"
    if settings.require_correct_refinement and not refinement_correct:
        return "refinement_wrong"
    if settings.require_wrong_draft and draft_correct:
        return "draft_right"
    return None


def count_rejections(rows: Sequence[CuratedRow]) -> dict[str, int]:
    """Return the number of rejected rows by reason."""
    reasons = [row.rejected for row in rows if row.rejected is not None]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
