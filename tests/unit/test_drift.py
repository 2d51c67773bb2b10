"""Critique-free answers are audited for what a reviser would say."""

import pytest

from cgd_ray.evaluation.drift import audit, echo_share, has_reviser_phrase


@pytest.mark.parametrize(
    ("answer", "revises"),
    [
        ("The student's answer is wrong in step 2.", True),
        ("Here is the corrected answer: 5", True),
        ("Following the critique, 2 + 3 = 5.", True),
        ("In the previous answer 2 + 3 was 6.", True),
        ("Upon review, the sum is 5.", True),
        ("2 + 3 = 5, so \\boxed{5}.", False),
        ("There are 12 students in the class, and the answer is 12.", False),
        ("The original price was $5; the improved one is $4.", False),
        ("She revised for 3 hours and drank a draft beer.", False),
    ],
)
def test_phrases_of_a_reviser(answer: str, revises: bool) -> None:
    assert has_reviser_phrase(answer) is revises


def test_echo_is_the_share_of_runs_that_the_draft_holds() -> None:
    draft = "first we add the two numbers that are given and get six"
    assert echo_share(draft, draft) == 1
    assert echo_share("First we add the two numbers that are wrong", draft) == 0.5
    assert echo_share("five", draft) == 0


def test_an_audit_counts_both_sides() -> None:
    found = audit(["\\boxed{5}", "The corrected answer is 7"], ["5", "#### 6"], 30, 10)
    assert (found.num_answers, found.length_ratio) == (2, 3)
    assert (found.reviser_share, found.base_reviser_share) == (0.5, 0)
    assert (found.marked_share, found.base_marked_share) == (1, 0.5)
    with pytest.raises(ValueError, match="1 answers and 0 of the base model"):
        audit(["a"], [], 1, 1)
