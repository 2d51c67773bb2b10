"""Answers of an endpoint become scores; what can never be answered is wrong, not missing."""

from cgd_ray.evaluation.grader_pool import GraderPool
from cgd_ray.evaluation.runner import score_answers
from cgd_ray.records import Score
from cgd_ray.teacher.completion import TeacherError
from tests.support.records import completion, prompt

RIGHT = prompt("1 + 1 =", id="p1", reference="2")
LONG = prompt("1 + " * 9000, id="p2", reference="3")
BUSY = prompt("2 + 2 =", id="p3", reference="4")


def test_every_question_is_scored_or_left_for_later() -> None:
    refused = TeacherError("bad_request", "HTTP 400: too long", permanent=True)
    with GraderPool(1) as pool:
        outcomes = score_answers(
            [
                (("student", RIGHT), completion("so \\boxed{2}")),
                (("student", LONG), refused),
                (("student", BUSY), TeacherError("overloaded", "HTTP 503")),
            ],
            pool,
        )
    scores = {record.key: record for record in outcomes.records if isinstance(record, Score)}
    assert scores["student/p1"].correct
    assert not scores["student/p2"].correct
    assert scores["student/p2"].reason == "refused: HTTP 400: too long"
    assert [(f.row_id, f.reason, f.permanent) for f in outcomes.failures] == [
        ("student/p3", "overloaded", False)
    ]
