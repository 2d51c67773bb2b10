"""Chain -> audit row: every figure that is known of one critique."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from cgd_ray.audit.leakage import Criticised, GradeAll, Leak, find_leaks
from cgd_ray.audit.quality import Duplicate, corpus, find_duplicates, specificity
from cgd_ray.audit.verdicts import read_verdict
from cgd_ray.evaluation.drift import has_reviser_phrase
from cgd_ray.evaluation.grader_pool import GradeItem
from cgd_ray.examples.objectives import Chain


@dataclass(frozen=True, slots=True)
class AuditRow:
    """What was found about one chain. None: the prompt has no reference, or as the field says."""

    draft_id: str
    prompt_id: str
    draft_correct: bool | None
    refinement_correct: bool | None
    answer_stated: bool | None  # the critique states a value equal to the reference
    answer_new: bool | None  # and neither prompt nor draft does: a leak
    answer_position: float | None  # of the first statement, as a share of the critique's length
    verdict: str | None  # "right" or "wrong"; None: the critique does not say
    specificity: float  # share of its words that are about this draft, 0 to 1
    num_draft_words: int
    num_critique_words: int
    num_refinement_words: int
    duplicate: str | None  # "exact" or "near"; None: no earlier critique says the same
    duplicate_of: str | None  # draft id
    speaks_of_draft: bool  # the refinement mentions a draft, a critique or a revision

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("draft_id", pa.string(), nullable=False),
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("draft_correct", pa.bool_()),
            pa.field("refinement_correct", pa.bool_()),
            pa.field("answer_stated", pa.bool_()),
            pa.field("answer_new", pa.bool_()),
            pa.field("answer_position", pa.float64()),
            pa.field("verdict", pa.string()),
            pa.field("specificity", pa.float64(), nullable=False),
            pa.field("num_draft_words", pa.int32(), nullable=False),
            pa.field("num_critique_words", pa.int32(), nullable=False),
            pa.field("num_refinement_words", pa.int32(), nullable=False),
            pa.field("duplicate", pa.string()),
            pa.field("duplicate_of", pa.string()),
            pa.field("speaks_of_draft", pa.bool_(), nullable=False),
        ]
    )

    @property
    def key(self) -> str:
        """The draft id."""
        return self.draft_id


@dataclass(frozen=True, slots=True)
class _Graded:
    """What needed the reference."""

    draft_correct: bool
    refinement_correct: bool
    leak: Leak


def audit_rows(chains: Sequence[Chain], grade_all: GradeAll) -> list[AuditRow]:
    """Return the figures of each chain.

    Args:
        chains: R of them.
        grade_all: grades answers in order, as `GraderPool.grade_all`.

    Returns:
        R rows, in order.
    """
    graded = _graded(chains, grade_all)
    words = corpus(chain.critique.text for chain in chains)
    duplicates = find_duplicates([(chain.draft.id, chain.critique.text) for chain in chains])
    return [
        _row(
            chain,
            graded.get(chain.draft.id),
            specificity(chain.critique.text, chain.prompt.text, chain.draft.text, words),
            duplicate,
        )
        for chain, duplicate in zip(chains, duplicates, strict=True)
    ]


def criticised(chain: Chain) -> Criticised:
    """Return the texts of a chain in which its reference may stand."""
    reference = chain.prompt.reference or ""
    return Criticised(reference, chain.prompt.text, chain.draft.text, chain.critique.text)


def _graded(chains: Sequence[Chain], grade_all: GradeAll) -> dict[str, _Graded]:
    """Return, by draft id, what was graded of the chains that have a reference."""
    known = [chain for chain in chains if (chain.prompt.reference or "").strip()]
    texts = [(c.prompt.reference or "", t.text) for c in known for t in (c.draft, c.refinement)]
    grades = iter(grade_all([GradeItem(*pair) for pair in texts]))
    leaks = find_leaks([criticised(chain) for chain in known], grade_all)
    return {
        chain.draft.id: _Graded(next(grades).correct, next(grades).correct, leak)
        for chain, leak in zip(known, leaks, strict=True)
    }


def _row(
    chain: Chain, graded: _Graded | None, specific: float, duplicate: Duplicate | None
) -> AuditRow:
    return AuditRow(
        draft_id=chain.draft.id,
        prompt_id=chain.prompt.id,
        draft_correct=graded and graded.draft_correct,
        refinement_correct=graded and graded.refinement_correct,
        answer_stated=graded and graded.leak.stated,
        answer_new=graded and graded.leak.new,
        answer_position=graded and graded.leak.position,
        verdict=read_verdict(chain.critique.text),
        specificity=specific,
        num_draft_words=len(chain.draft.text.split()),
        num_critique_words=len(chain.critique.text.split()),
        num_refinement_words=len(chain.refinement.text.split()),
        duplicate=duplicate and duplicate.kind,
        duplicate_of=duplicate and duplicate.of,
        speaks_of_draft=has_reviser_phrase(chain.refinement.text),
    )
