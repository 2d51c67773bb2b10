"""Response -> score: the record of one graded answer of one served model."""

from cgd_ray.evaluation.grading import Grade
from cgd_ray.records import Prompt, Score


def score_response(
    model: str, prompt: Prompt, response: str, num_tokens: int, grade: Grade
) -> Score:
    """Return the score of one answer.

    Args:
        model: its id on the endpoint.
        prompt: what was asked.
        response: the whole answer.
        num_tokens: generated tokens.
        grade: the verdict on it.
    """
    return Score(
        model=model,
        prompt_id=prompt.id,
        response=response,
        extracted=grade.extracted,
        correct=grade.correct,
        reason=grade.reason,
        num_tokens=num_tokens,
    )
