"""The tutor on the legs of animals: problems in words, solved and criticised step by step."""

import random
import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
import reasoning_gym
from reasoning_gym.arithmetic.leg_counting import ANIMALS

from cgd_ray.audit.leakage import Criticised, find_leaks
from cgd_ray.evaluation.grader_pool import GradeItem
from cgd_ray.evaluation.grading import Grade, grade
from cgd_ray.tutor.arithmetic import CannotSolve, Step
from cgd_ray.tutor.conversation import answer_chat, solve_problem
from cgd_ray.tutor.feedback import WrongStep, first_wrong_step, write_critique, write_refinement
from cgd_ray.tutor.legs import LEGS, asks_for_legs, solve_legs
from cgd_ray.tutor.reading import LongSum, read_draft
from cgd_ray.tutor.wire import ChatMessage, Reply

OPTIONS: list[dict[str, Any]] = [
    {},
    {"min_animals": 1, "max_animals": 3, "max_instances": 3},
    {"min_animals": 2, "max_animals": 4, "max_instances": 1},
    {"min_animals": 10, "max_animals": 37, "min_instances": 50, "max_instances": 1024},
]


def question(animals: str) -> str:
    return (
        "Your task is to count how many legs there are in total when given a list of animals.\n\n"
        f"Now, how many legs are there in total if you have {animals}?\n"
    )


PROBLEM = question("5 woodlouses, 2 leechs, 3 cats, 1 spider")
STEPS = (
    Step(5, "*", 14, 70, "5 woodlouses, 14 legs each"),
    Step(2, "*", 0, 0, "2 leechs, 0 legs each"),
    Step(3, "*", 4, 12, "3 cats, 4 legs each"),
    Step(1, "*", 8, 8, "1 spider, 8 legs"),
    Step(70, "+", 0, 70),
    Step(70, "+", 12, 82),
    Step(82, "+", 8, 90),
)
REFINEMENT = """\
5 woodlouses, 14 legs each: 5 * 14 = 70
2 leechs, 0 legs each: 2 * 0 = 0
3 cats, 4 legs each: 3 * 4 = 12
1 spider, 8 legs: 1 * 8 = 8
70 + 0 = 70
70 + 12 = 82
82 + 8 = 90
The answer is \\boxed{90}."""


def grade_here(items: Sequence[GradeItem]) -> list[Grade]:
    return [grade(item.gold, item.response) for item in items]


def rows_of(options: dict[str, Any], size: int) -> list[dict[str, Any]]:
    return list(reasoning_gym.create_dataset("leg_counting", size=size, seed=7, **options))


def test_steps_are_a_product_a_kind_then_running_sums():
    assert solve_legs(PROBLEM) == STEPS
    assert solve_problem(PROBLEM) == STEPS
    assert solve_legs(question("1 cat")) == (Step(1, "*", 4, 4, "1 cat, 4 legs"),)
    assert [str(s) for s in solve_legs(question("3 cats, 3 dogs"))] == ["3 * 4", "3 * 4", "12 + 12"]


def test_the_legs_of_each_animal_are_the_data_sets_in_any_plural():
    assert LEGS == ANIMALS
    for name, legs in ANIMALS.items():
        for written in (name, f"{name}s", name.title(), name.removesuffix("y") + "ies"):
            if written.endswith("ies") and not name.endswith("y"):
                continue
            assert solve_legs(question(f"7 {written}"))[0].right == legs
    people = "Count. How many legs do I see if I have 2 leeches and 3 sheep?"
    assert solve_legs(people)[-1].result == 12


@pytest.mark.parametrize("options", OPTIONS)
def test_solved_to_the_data_sets_own_answer_and_the_refinement_is_graded_right(
    options: dict[str, Any],
):
    for row in rows_of(options, 500):
        steps = solve_problem(row["question"])
        assert str(steps[-1].result) == row["answer"]
        refinement = write_refinement(steps)
        assert grade(row["answer"], refinement).correct
        assert first_wrong_step(steps, read_draft(refinement, in_words=True)) is None
        assert read_draft(refinement, in_words=True).final == steps[-1].result


@pytest.mark.parametrize(
    "problem, reason",
    [
        (question("2 cats, 3 unicorns"), "the legs of 'unicorns' are not known"),
        (question("a cat"), "the list of animals has 'a cat' where a number of one is due"),
        (question("2 cats, "), "the list of animals has '' where a number of one is due"),
        (question("2 cats 3 dogs"), "where a number of one is due"),
        (question("2.5 cats"), "where a number of one is due"),
        (question(", ".join(["1 cat"] * 65)), "more than 64 kinds"),
        (question("1" * 19 + " cats"), "more than 18 digits"),
        ("What is 2 + 3?", "does not ask how many legs"),
    ],
)
def test_what_it_cannot_solve_is_said(problem: str, reason: str):
    with pytest.raises(CannotSolve, match=re.escape(reason)):
        solve_legs(problem)


def test_other_problems_are_none_of_these():
    assert not asks_for_legs("What is 3 * 4?")
    assert not asks_for_legs("How many apples are there in total if you have 3 legs?")
    assert solve_problem("What is 3 * 4?") == (Step(3, "*", 4, 12),)
    with pytest.raises(CannotSolve, match="2 separate groups of numbers"):
        solve_problem("Tom has 5 apples and buys 4. How many has he?")


def test_read_draft_takes_words_and_signs_as_students_write_them():
    draft = (
        "5 woodlouses have 14 legs each, so 5 * 14 = 70 legs\n"
        "2 leechs x 0 legs each = 0 legs\n"
        "* 3 cats (4 legs each): 3 \N{MULTIPLICATION SIGN} 4 = 12\n"
        "1x8 = 8, and 2 times 4 is 8\n"
        "70 legs (woodlouses) + 0 legs = 70 legs\n"
        "Total: 70 + 0 + 12 + 8 legs = 91\n"
        "There are 90 legs in total, of 5 woodlouses and more."
    )
    claims = read_draft(draft, in_words=True)
    expected = [(5, "*", 14, 70), (2, "*", 0, 0), (3, "*", 4, 12), (1, "*", 8, 8), (2, "*", 4, 8)]
    assert claims.equations == tuple(Step(*e) for e in [*expected, (70, "+", 0, 70)])
    assert claims.long_sums == (LongSum((70, 0, 12, 8), 91),)
    assert claims.final == 90


@pytest.mark.parametrize(
    "draft, final",
    [
        ("There are 70 legs in total.", 70),
        ("5 * 14 = 70\nThere are 71 legs in total.", 71),
        ("There are 71 legs altogether, as 5 * 14 = 70.", 71),
        ("The total number of legs is 70.", 70),
        ("So there are a total of 70 legs on the 5 woodlouses.", 70),
        ("The total number of legs is 70 + 12 = 82.", 82),
        ("70 + 12 = 82 legs on these 8 animals", 82),
        ("5 * 14 = 70 legs\nThere are 71 legs", 71),
        ("There are 71 legs in total. The answer is 70.", 70),
        ("\\boxed{70}, so 71 legs in total", 70),
        ("70", 70),
        ("No idea.", None),
    ],
)
def test_read_draft_finds_the_final_answer(draft: str, final: int | None):
    assert read_draft(draft, in_words=True).final == final


GO = "Go kind by kind, one operation a line, and box the result."
PRODUCTS = "5 * 14 = 70\n2 * 0 = 0\n3 x 4 = 12\n"


@pytest.mark.parametrize(
    "draft, wrong, critique",
    [
        (  # right
            f"{PRODUCTS}1 * 8 = 8\n70 + 0 + 12 + 8 = 90\nThere are 90 legs in total.",
            None,
            "The final result is right. Show the work: " + GO.replace("Go", "go"),
        ),
        (  # a wrong product
            "5 woodlouses have 14 legs each, so 5 * 14 = 60 legs\n3 cats: 3 * 4 = 12\n"
            "There are 72 legs in total.",
            WrongStep(0, "result"),
            f"Step 1 is wrong: redo 5 woodlouses, 14 legs each: 5 * 14, then go on. {GO}",
        ),
        (  # a wrong number of legs
            "5 * 14 = 70\n2 leechs have 2 legs each: 2 * 2 = 4\n3 * 4 = 12\n1 * 8 = 8\n"
            "70 + 4 + 12 + 8 = 94\nThere are 94 legs in total.",
            WrongStep(1, "copied"),
            f"Step 2 is not the problem's: do 2 leechs, 0 legs each: 2 * 0, then go on. {GO}",
        ),
        (  # a wrong number of legs of the first kind
            "5 * 6 = 30\n2 * 0 = 0\n3 * 4 = 12\n1 * 8 = 8\n30 + 20 = 50\n\\boxed{50}",
            WrongStep(0, "copied"),
            f"Step 1 is not the problem's: do 5 woodlouses, 14 legs each: 5 * 14, then go on. {GO}",
        ),
        (  # of a single one, in words alone
            f"{PRODUCTS}1 spider has 6 legs\n70 + 0 + 12 + 6 = 88 legs",
            WrongStep(3, "skipped"),
            f"Step 4 is missing: do 1 spider, 8 legs: 1 * 8, then go on. {GO}",
        ),
        (  # a kind is missing
            "5 * 14 = 70\n2 * 0 = 0\n1 * 8 = 8\n70 + 8 = 78\nThere are 78 legs in total.",
            WrongStep(2, "skipped"),
            f"Step 3 is missing: do 3 cats, 4 legs each: 3 * 4, then go on. {GO}",
        ),
        (  # a wrong sum in one go; the zero is left out
            "5 * 14 = 70\n3 * 4 = 12\n1 spider: 8 legs\n70 + 12 + 8 = 91\n91 legs in total",
            WrongStep(5, "skipped"),
            f"Step 6 is missing: do 70 + 12, then go on. {GO}",
        ),
        (  # a wrong running sum, the last one
            f"{PRODUCTS}1 * 8 = 8\n70 + 12 = 82\n82 + 8 = 80\nThe answer is 80.",
            WrongStep(6, "result"),
            f"Step 7 is wrong: redo 82 + 8. {GO}",
        ),
        (  # a wrong final answer
            f"{PRODUCTS}1 * 8 = 8\n70 legs + 12 legs = 82 legs\n82 + 8 = 90\n80 legs in total",
            WrongStep(6, "final"),
            "Each step is right, but the final result is not the last one's. Box that one.",
        ),
        (  # of a long sum
            "(5 x 14) + (2 x 0) + (3 x 4) + (1 x 8) = 70 + 0 + 12 + 8 = 90\nThe answer is 9.",
            WrongStep(6, "final"),
            "Each step is right, but the final result is not the last one's. Box that one.",
        ),
        (  # right in the end, wrong on the way
            f"{PRODUCTS}1 * 8 = 9\nThere are 90 legs in total.",
            WrongStep(3, "result"),
            "The final result is right, but step 4 is wrong: redo 1 spider, 8 legs: 1 * 8, "
            f"then go on. {GO}",
        ),
        (  # rambling
            "There are 5 woodlouses. Woodlouses are nice. Woodlouses are nice. I have 2 of them.",
            WrongStep(0, "skipped"),
            "The result is wrong. Redo it kind by kind, one operation a line: "
            "5 woodlouses, 14 legs each: 5 * 14, then go on. Box the result.",
        ),
    ],
)
def test_critique_of_a_draft(draft: str, wrong: WrongStep | None, critique: str):
    assert first_wrong_step(STEPS, read_draft(draft, in_words=True)) == wrong
    assert write_critique(STEPS, draft, "none") == critique


def test_of_two_kinds_alike_each_has_its_own_product():
    steps = solve_legs(question("3 cats, 3 dogs"))
    critique = write_critique(steps, "3 * 4 = 12\n3 * 4 = 13\n12 + 13 = 25", "none")
    assert critique.startswith("Step 2 is wrong: redo 3 dogs, 4 legs each: 3 * 4, then go on.")
    once = write_critique(steps, "3 * 4 = 12\nThere are 12 legs in total.", "none")
    assert once.startswith("Step 3 is missing: do 12 + 12. Go kind")


def test_a_number_of_the_problem_is_not_taken_for_a_product():
    steps = solve_legs(question("3 cats, 24 snakes, 4 ants, 12 birds"))
    draft = "3 * 4 = 12\n24 * 0 = 0\n12 * 2 = 24\n12 + 24 = 36\nThe answer is 36."
    critique = write_critique(steps, draft, "none")
    assert critique.startswith("Step 3 is missing: do 4 ants, 6 legs each: 4 * 6, then go on.")


def test_a_zero_that_is_left_out_of_the_sum_is_no_fault():
    steps = solve_legs(question("5 woodlouses, 3 cats, 2 leechs"))
    summed = write_critique(steps, "5 * 14 = 70\n3 * 4 = 12\n70 + 12 = 82\n83 legs", "none")
    assert summed.startswith("Each step is right, but the final result")
    two = solve_legs(question("5 woodlouses, 2 leechs"))
    stray = write_critique(two, "5 * 14 = 70\n70 + 2 = 72\n72 legs in total", "none")
    assert stray == f"Step 3 is missing: do 70 + 0. {GO}"
    unsummed = write_critique(two, "5 * 14 = 70\n2 * 0 = 0\n72 legs in total", "none")
    assert unsummed == stray


def test_the_legs_of_one_are_not_told_where_they_are_the_answer():
    steps = solve_legs(question("1 cat, 2 snakes"))
    draft = "1 * 2 = 2\n2 * 0 = 0\n2 + 0 = 2"
    critique = f"Step 1 is not the problem's: do the legs of 1 cat, then go on. {GO}"
    assert write_critique(steps, draft, "none") == critique
    assert "do 1 cat, 4 legs: 1 * 4 = 4, then go on" in write_critique(steps, draft, "step")


def test_reveal_says_more():
    draft = f"{PRODUCTS}1 * 8 = 9"
    step = f"Step 4 is wrong: redo 1 spider, 8 legs: 1 * 8 = 8, then go on. {GO}"
    assert write_critique(STEPS, draft, "step") == step
    assert write_critique(STEPS, draft, "answer") == f"{step} The answer is 90."


def _random_draft(rng: random.Random, steps: tuple[Step, ...]) -> str:
    lines: list[str] = []
    share_skipped = rng.choice([0.0, 0.3, 0.8])
    for step in steps:
        right = step.right + rng.choice([0, 0, 0, 2])
        result = step.result + rng.choice([0, 0, 0, 1, -10])
        sign = rng.choice("x*") if step.operator == "*" else "+"
        told = [
            f"{step.left} {sign} {right} = {result}",
            f"- {step.left} animals {sign} {right} legs = {result} legs",
            f"{step.words}: {result} legs",
        ]
        if rng.random() >= share_skipped:
            lines.append(rng.choice(told))
    products = [str(s.result + rng.choice([0, 0, 0, 0, 4])) for s in steps if s.words]
    final = steps[-1].result + rng.choice([0, 1, -1, 10])
    if rng.random() < 0.3:
        lines.append(f"{' + '.join(products)} = {final}")
    return "\n".join([*lines, rng.choice([f"There are {final} legs in total.", ""])])


@pytest.mark.parametrize("options", OPTIONS)
def test_critiques_that_reveal_nothing_give_neither_answer_nor_results(options: dict[str, Any]):
    rng = random.Random(11)
    legs = set(LEGS.values())
    told: list[Criticised] = []
    for row in rows_of(options, 400):
        steps = solve_problem(row["question"])
        for _ in range(3):
            draft = _random_draft(rng, steps)
            critique = write_critique(steps, draft, "none")
            told.append(Criticised(row["answer"], row["question"], draft, critique))
            said, seen = (
                {int(n) for n in re.findall(r"[0-9]+", re.sub(r"[Ss]tep [0-9]+", "", text))}
                for text in (critique, row["question"] + draft)
            )
            assert said <= seen | legs, (row["question"], draft, critique)
    leaks = find_leaks(told, grade_here)
    assert [row for row, leak in zip(told, leaks, strict=True) if leak.new] == []


def _reply(draft: str, problem: str = PROBLEM) -> Reply:
    asked = f"<problem>{problem}</problem>\n<answer>{draft}</answer>"
    return answer_chat([ChatMessage(role="user", content=asked)], "none")


def test_a_chat_about_legs_gets_its_critique_and_its_refinement():
    assert write_refinement(STEPS) == REFINEMENT
    reply = _reply("72")
    assert (reply.turn, reply.text) == ("critique", write_critique(STEPS, "72", "none"))
    turns = [
        ChatMessage(role="user", content=f"<problem>{PROBLEM}</problem><answer>72</answer>"),
        ChatMessage(role="assistant", content=reply.text),
        ChatMessage(role="user", content="Now write it anew."),
    ]
    assert answer_chat(turns, "none") == Reply("refinement", REFINEMENT, num_cached_messages=1)
    refused = _reply("4", question("2 unicorns"))
    assert refused == Reply(
        "refusal", "The tutor cannot help: the legs of 'unicorns' are not known."
    )


@pytest.mark.parametrize(
    "piece",
    [
        "how many legs have ",
        "how many legs ",
        "1 cat, ",
        "1 x ",
        "1 a",
        "1 legs ",
        "total ",
        "1 + ",
        "=1+1+1",
        ", ",
        " ",
        "1",
    ],
)
def test_hostile_text_takes_bounded_time(piece: str):
    text = piece * (300_000 // len(piece))
    started = time.process_time()
    _reply(text)
    _reply("4", problem=text)
    _reply("4", problem=question(text))
    assert time.process_time() - started < 5
