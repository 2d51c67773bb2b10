"""The tutor counts legs: problems in words, solved exactly, criticised without the results."""

import random
from collections.abc import Sequence

import pytest
import reasoning_gym

from cgd_ray.audit.leakage import Criticised, find_leaks
from cgd_ray.evaluation.grader_pool import GradeItem
from cgd_ray.evaluation.grading import Grade, grade
from cgd_ray.tutor.arithmetic import CannotSolve, Step
from cgd_ray.tutor.conversation import answer_chat
from cgd_ray.tutor.feedback import (
    Reveal,
    WrongStep,
    first_wrong_step,
    write_critique,
    write_refinement,
)
from cgd_ray.tutor.legs import LEGS, asks_for_legs, solve_legs
from cgd_ray.tutor.reading import read_draft
from cgd_ray.tutor.wire import ChatMessage

PROBLEM = "Now, how many legs are there in total if you have 3 cats, 1 sea slug, 2 crabs?\n"
STEPS = (
    Step(3, "*", 4, 12, "3 cats, 4 legs each"),
    Step(1, "*", 0, 0, "1 sea slug, 0 legs"),
    Step(2, "*", 10, 20, "2 crabs, 10 legs each"),
    Step(12, "+", 0, 12),
    Step(12, "+", 20, 32),
)


def problems(size: int, seed: int = 5, **options: int):
    return reasoning_gym.create_dataset("leg_counting", size=size, seed=seed, **options)


def test_kinds_come_first_and_then_the_running_sums():
    assert solve_legs(PROBLEM) == STEPS
    assert solve_legs("How many legs are there if you have 1 spider?") == (
        Step(1, "*", 8, 8, "1 spider, 8 legs"),
    )


@pytest.mark.parametrize("options", [{}, {"min_animals": 1, "max_animals": 2}, {"max_animals": 37}])
def test_solve_agrees_with_the_gold_answers(options):
    for row in problems(500, **options):
        assert str(solve_legs(row["question"])[-1].result) == row["answer"]


def test_every_animal_of_the_family_is_known():
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    assert LEGS == ANIMALS


@pytest.mark.parametrize(
    ("animals", "said"),
    [
        ("3 unicorns", "the number of legs of 'unicorn' is not known"),
        ("some cats", "'some cats' in it, not a number and a name"),
        (", ".join(["1 cat"] * 65), "more than 64 kinds"),
    ],
)
def test_what_it_cannot_count_is_said(animals, said):
    with pytest.raises(CannotSolve, match=said):
        solve_legs(f"How many legs are there in total if you have {animals}?")


def test_a_refinement_is_one_kind_a_line_and_right():
    text = write_refinement(STEPS)
    assert text.splitlines() == [
        "3 cats, 4 legs each: 3 * 4 = 12",
        "1 sea slug, 0 legs: 1 * 0 = 0",
        "2 crabs, 10 legs each: 2 * 10 = 20",
        "12 + 0 = 12",
        "12 + 20 = 32",
        "The answer is \\boxed{32}.",
    ]
    for row in problems(50):
        refined = write_refinement(solve_legs(row["question"]))
        assert grade(row["answer"], refined, "math").correct
        assert first_wrong_step(solve_legs(row["question"]), read_draft(refined)) is None


@pytest.mark.parametrize(
    ("draft", "wrong"),
    [
        ("There are 32 legs in total.", None),
        ("There are 6 animals.", WrongStep(0, "skipped")),
        ("3 cats have 4 legs each, so 3 * 4 = 12 legs.", WrongStep(1, "skipped")),
        ("3 cats have 4 legs each, so 3 x 4 = 14 legs.", WrongStep(0, "result")),
        ("3 \N{MULTIPLICATION SIGN} 4 = 12, 1 x 0 = 0", WrongStep(2, "skipped")),
        ("3 * 2 = 6 legs", WrongStep(0, "copied")),
        (write_refinement(STEPS).replace("{32}", "{20}"), WrongStep(4, "final")),
    ],
)  # fmt: skip
def test_first_wrong_step(draft, wrong):
    assert first_wrong_step(STEPS, read_draft(draft)) == wrong


@pytest.mark.parametrize(
    ("draft", "critique"),
    [
        (
            "There are 6 animals.",
            "The result is wrong. Redo it kind by kind, one operation a line: 3 cats, 4 legs each: "
            "3 * 4; 1 sea slug, 0 legs: 1 * 0; 2 crabs, 10 legs each: 2 * 10, then add up. Box the "
            "result.",
        ),
        (
            "3 * 4 = 12",
            "Step 2 is missing: do 1 sea slug, 0 legs: 1 * 0; 2 crabs, 10 legs each: 2 * 10, then "
            "add up. Go kind by kind, one operation a line, and box the result.",
        ),
        (
            "The answer is 32.",
            "The final result is right. Show the work: go kind by kind, one operation a line, and "
            "box the result.",
        ),
    ],
)
def test_critique_names_what_to_redo(draft, critique):
    assert write_critique(STEPS, draft, "none") == critique


def grades(items: Sequence[GradeItem]) -> list[Grade]:
    return [grade(i.gold, i.response, i.kind, i.relative_tolerance) for i in items]


def leaks(reveal: Reveal) -> int:
    draw = random.Random(3)
    rows: list[Criticised] = []
    for row in problems(200, min_animals=2, max_animals=3):
        steps = solve_legs(row["question"])
        lines = write_refinement(steps).splitlines()[: draw.randrange(len(steps))]
        draft = "\n".join([*lines, f"There are {draw.randrange(200)} legs."])
        critique = write_critique(steps, draft, reveal)
        rows.append(Criticised(row["answer"], row["question"], draft, critique))
    return sum(leak.new for leak in find_leaks(rows, grades))


def test_critiques_leak_as_much_as_they_are_told_to():
    # A kind's legs can happen to be the sum: "1 crab, 10 legs" beside snakes.
    assert leaks("none") <= 2
    assert leaks("answer") > 180


def test_the_chat_teaches_it():
    asked = f"<problem>{PROBLEM}</problem>\n<answer>12</answer>"
    reply = answer_chat([ChatMessage(role="user", content=asked)], "none")
    assert reply.turn == "critique" and reply.text.startswith("The result is wrong.")
    assert asks_for_legs(PROBLEM) and not asks_for_legs("What is 3 + 4?")
