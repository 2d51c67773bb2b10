"""Chains against the reference, and the rules for what training may use."""

from collections.abc import Sequence
from dataclasses import dataclass

from cgd_ray.audit.leakage import GradeAll, Leak, find_leaks, masked
from cgd_ray.audit.quality import corpus, specificity
from cgd_ray.audit.rows import criticised
from cgd_ray.audit.verdicts import Verdict, read_verdict
from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.examples.objectives import Chain
from cgd_ray.records import CuratedRow
from cgd_ray.settings import CurationSettings


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of a chain when it is judged. None: not known, or no rule asks for it."""

    draft_correct: bool | None = None
    refinement_correct: bool | None = None
    leak: Leak | None = None
    specificity: float | None = None
    verdict: Verdict | None = None  # what the critique says of the draft


def verify(chains: Sequence[Chain], settings: CurationSettings) -> list[CuratedRow]:
    """Grade every chain and decide whether it is used.

    Args:
        chains: all that were refined.
        settings: the rules.

    Returns:
        A row for each chain, in order.
    """
    known = [chain for chain in chains if chain.prompt.reference is not None]
    with GraderPool(settings.num_processes) as pool:
        verdicts = _grade(known, pool.grade_all)
        leaks = _leaks(known, settings, pool.grade_all)
    specific = _specificities(chains, settings)
    rows: list[CuratedRow] = []
    for chain in chains:
        key = chain.draft.id
        graded = verdicts.get(key, (None, None))
        said = read_verdict(chain.critique.text) if settings.require_true_verdict else None
        found = Findings(*graded, leaks.get(key), specific.get(key), said)
        rows.append(_judge(chain, found, settings))
    return rows


def _grade(chains: Sequence[Chain], grade_all: GradeAll) -> dict[str, tuple[bool, bool]]:
    """Return, by draft id, whether draft and refinement are right."""
    items = [
        GradeItem(chain.prompt.reference or "", text)
        for chain in chains
        for text in (chain.draft.text, chain.refinement.text)
    ]
    grades = grade_all(items)
    pairs = zip(chains, grades[::2], grades[1::2], strict=True)
    return {chain.draft.id: (draft.correct, refined.correct) for chain, draft, refined in pairs}


def _leaks(
    chains: Sequence[Chain], settings: CurationSettings, grade_all: GradeAll
) -> dict[str, Leak]:
    if settings.leakage == "keep":
        return {}
    found = find_leaks([criticised(chain) for chain in chains], grade_all)
    return {chain.draft.id: leak for chain, leak in zip(chains, found, strict=True)}


def _specificities(chains: Sequence[Chain], settings: CurationSettings) -> dict[str, float]:
    if settings.min_specificity == 0:
        return {}
    words = corpus(chain.critique.text for chain in chains)
    return {
        c.draft.id: specificity(c.critique.text, c.prompt.text, c.draft.text, words) for c in chains
    }


def _judge(chain: Chain, found: Findings, settings: CurationSettings) -> CuratedRow:
    leak = found.leak
    hide = settings.leakage == "mask" and leak is not None and leak.new
    return CuratedRow(
        draft_id=chain.draft.id,
        prompt_id=chain.prompt.id,
        draft_correct=found.draft_correct,
        refinement_correct=found.refinement_correct,
        rejected=rejection(found, settings),
        masked_critique=masked(chain.critique.text, leak.spans) if hide and leak else None,
    )


def rejection(found: Findings, settings: CurationSettings) -> str | None:
    """Return the reason for which a chain is not used; None if it is."""
    if settings.require_correct_refinement and found.refinement_correct is None:
        return "no_reference"
    if settings.require_correct_refinement and not found.refinement_correct:
        return "refinement_wrong"
    if settings.require_wrong_draft and found.draft_correct:
        return "draft_right"
    dropped = settings.leakage in ("drop", "regenerate")
    if dropped and found.leak is not None and found.leak.new:
        return "critique_leaks"
    if found.specificity is not None and found.specificity < settings.min_specificity:
        return "critique_unspecific"
    if found.verdict is not None and found.draft_correct is not None:
        return None if (found.verdict == "right") == found.draft_correct else "verdict_false"
    return None


def count_rejections(rows: Sequence[CuratedRow]) -> dict[str, int]:
    """Return the number of rejected rows by reason."""
    reasons = [row.rejected for row in rows if row.rejected is not None]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
