"""Whether a student that learned from critiques still answers as if there were none.

A student sees the prompt alone when it is served. Phrases of a reviser, or the draft that the
untrained model would have written, in its answers are drift from what it was trained on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cgd_ray.evaluation.answers import final_text, marked_answer

_ECHO_WORDS = 8  # of a run of words that two answers share
_REVISER = re.compile(
    r"\b(?:the|your|my|this|previous|original|initial|student'?s?)\s+"
    r"(?:previous|original|initial|first|student'?s?|earlier)?\s*"
    r"(?:draft|critique|feedback|revision|submission)\b"
    r"|\b(?:the student|the critique|as the critique|the feedback)\b"
    r"|\b(?:corrected|revised|refined|improved)\s+(?:answer|solution|response|version)\b"
    r"|\b(?:in the|your|my|the)\s+(?:previous|original|initial|earlier)\s+"
    r"(?:answer|solution|response|attempt)\b"
    r"|\b(?:upon|after)\s+(?:review|re-?examin|reconsider)\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Drift:
    """Shares of a student's answers between 0 and 1, and the same of the base model's."""

    num_answers: int
    reviser_share: float  # with a phrase of someone who revises a draft
    base_reviser_share: float
    echo: float  # mean share of the answer's runs of words that the base model's answer holds
    length_ratio: float  # tokens of the student over those of the base model
    marked_share: float  # with a marked final answer: a box, `####` or "the answer is"
    base_marked_share: float


def audit(
    answers: Sequence[str], base_answers: Sequence[str], num_tokens: int, num_base_tokens: int
) -> Drift:
    """Compare a student's critique-free answers with the base model's.

    Args:
        answers: of the student, at least one.
        base_answers: of the base model to the same prompts, in the same order.
        num_tokens: of all of the student's answers.
        num_base_tokens: likewise.

    Raises:
        ValueError: there are no answers, or not as many of both.
    """
    if not answers or len(answers) != len(base_answers):
        raise ValueError(f"{len(answers)} answers and {len(base_answers)} of the base model")
    n = len(answers)
    return Drift(
        num_answers=n,
        reviser_share=sum(map(has_reviser_phrase, answers)) / n,
        base_reviser_share=sum(map(has_reviser_phrase, base_answers)) / n,
        echo=sum(map(echo_share, answers, base_answers)) / n,
        length_ratio=num_tokens / max(1, num_base_tokens),
        marked_share=sum(map(_is_marked, answers)) / n,
        base_marked_share=sum(map(_is_marked, base_answers)) / n,
    )


def has_reviser_phrase(answer: str) -> bool:
    """Return whether an answer speaks of a draft, a critique or a revision."""
    return bool(_REVISER.search(answer))


def echo_share(answer: str, draft: str) -> float:
    """Return the share of an answer's runs of 8 words that a draft holds too; 0 if it is shorter.

    Args:
        answer: what is audited.
        draft: what it may repeat.
    """
    runs = _runs(answer)
    return len(runs & _runs(draft)) / len(runs) if runs else 0.0


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + _ECHO_WORDS]) for i in range(len(words) - _ECHO_WORDS + 1)}


def _is_marked(answer: str) -> bool:
    return marked_answer(final_text(answer)) is not None
