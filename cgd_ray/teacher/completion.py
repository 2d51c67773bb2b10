"""One answer of a teacher, and the rules by which it is accepted."""

from dataclasses import dataclass

from cgd_ray.records import Failure


@dataclass(frozen=True, slots=True)
class Completion:
    """A chat completion, as every backend returns it."""

    text: str
    model: str
    finish_reason: str  # "stop", "length", "content_filter" or the provider's own word
    refusal: str | None
    num_input_tokens: int
    num_cached_tokens: int
    num_output_tokens: int


class TeacherError(Exception):
    """A call that gave no usable answer.

    Args:
        reason: a short fixed word: "rate_limited", "overloaded", "timeout", "unauthorized", ...
        detail: one line for a person.
        permanent: the same request would fail again.
        stop: no request can succeed (a bad key): the stage must stop.
        retry_after_s: the server's own wish, in seconds.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        permanent: bool = False,
        stop: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.permanent = permanent
        self.stop = stop
        self.retry_after_s = retry_after_s


def is_usable(answer: Completion) -> bool:
    """Return whether an answer is whole and was not refused."""
    return rejected_completion("", "", answer) is None


def rejected_completion(row_id: str, stage: str, answer: Completion) -> Failure | None:
    """Return why an answer cannot be used, as a permanent failure; None if it can."""
    if answer.refusal:
        return Failure(row_id, stage, "refusal", _line(answer.refusal), permanent=True)
    if answer.finish_reason == "content_filter":
        detail = "the provider's content filter stopped the answer"
        return Failure(row_id, stage, "content_filter", detail, permanent=True)
    if answer.finish_reason == "length":
        detail = f"cut off after {answer.num_output_tokens} tokens: raise teacher.*_max_tokens"
        return Failure(row_id, stage, "truncated", detail, permanent=True)
    if not answer.text.strip():
        return Failure(row_id, stage, "empty", "the teacher's answer is empty", permanent=True)
    return None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
