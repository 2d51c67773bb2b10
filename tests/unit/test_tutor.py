"""The tutor's arithmetic and words, without its server."""

import random
import re
import time

import pytest
import reasoning_gym

from cgd_ray.prompts.messages import Message
from cgd_ray.records import Critique, Draft, Prompt
from cgd_ray.teacher.critique import build_critique_messages
from cgd_ray.teacher.refinement import build_refinement_messages
from cgd_ray.tutor.arithmetic import CannotSolve, Step, find_expression, solve
from cgd_ray.tutor.conversation import answer_chat
from cgd_ray.tutor.feedback import (
    WrongStep,
    first_wrong_step,
    write_critique,
    write_refinement,
)
from cgd_ray.tutor.reading import read_draft
from cgd_ray.tutor.wire import ChatMessage, Reply, count_tokens

PROBLEM = "State the final answer to the following arithmetic problem: 26 + 60 - 3 ="
STEPS = (Step(26, "+", 60, 86), Step(86, "-", 3, 83))


def test_solve_gives_the_steps_in_evaluation_order():
    assert solve(PROBLEM) == STEPS
    assert [str(s) for s in solve("Calculate 2 + 3 * (7 - 1) / 2.")] == [
        "7 - 1",
        "3 * 6",
        "18 / 2",
        "2 + 9",
    ]
    assert solve("-(3 - 5) - -4")[-1].result == 6
    assert solve("What is 6 \N{MULTIPLICATION SIGN} 7?") == (Step(6, "*", 7, 42),)


@pytest.mark.parametrize("negative", [False, True])
def test_solve_agrees_with_the_gold_answers_of_chain_sum(negative: bool):
    rows = reasoning_gym.create_dataset("chain_sum", size=500, seed=7, allow_negation=negative)
    for row in rows:
        assert str(solve(row["question"])[-1].result) == row["answer"]


def test_solve_agrees_with_the_gold_answers_of_basic_arithmetic():
    num_solved = 0
    for row in reasoning_gym.create_dataset("basic_arithmetic", size=500, seed=7):
        try:
            steps = solve(row["question"])
        except CannotSolve as error:
            assert "is not an integer" in str(error)
            continue
        num_solved += 1
        assert str(steps[-1].result) == row["answer"]
    assert num_solved > 480


@pytest.mark.parametrize(
    "problem, reason",
    [
        ("", "no numbers"),
        ("Say 5.", "no operation"),
        ("Tom has 5 - 3 apples and buys 4.", "2 separate groups"),
        ("x - 5 + 3", "more in it"),
        ("3 + 4x", "more in it"),
        ("5! + 3", "2 separate groups"),
        ("2.5 + 1", "2 separate groups"),
        ("1 + 2 ^ 3", "2 separate groups"),
        ("2 ** 3", "where a number is due"),
        ("5 + 3 -", "where a number is due"),
        ("5 3 + 2", "unexpected '3'"),
        ("(5 + 3", "not closed"),
        ("7 / 2", "7 / 2 is not an integer"),
        ("7 / (2 - 2)", "7 / 0 has no result"),
        ("1" * 19 + " + 1", "more than 18 digits"),
        ("*".join(["999999999999999999"] * 3), "a result has more than 40 digits"),
        ("(" * 500 + "1", "more than 128"),
        ("1" * 900_000, "more than 18 digits"),
    ],
)
def test_what_it_cannot_solve_is_said(problem: str, reason: str):
    with pytest.raises(CannotSolve, match=re.escape(reason)):
        solve(problem)


def test_read_draft_takes_equations_of_two_numbers_and_the_final_answer():
    draft = (
        "1. 26 + 60 = **86**\n- \\(86 - 3 = 83\\)\nSo (1,000) \\times 2 = 2,000.\n"
        "26 + 60 - 3 = 86 - 3 = 84\nThe answer is \\boxed{85}, I hope, in 3 steps."
    )
    claims = read_draft(draft)
    assert claims.equations == (
        Step(26, "+", 60, 86),
        Step(86, "-", 3, 83),
        Step(1000, "*", 2, 2000),
        Step(86, "-", 3, 84),
    )
    assert claims.final == 85


@pytest.mark.parametrize(
    "draft, final",
    [
        ("26 + 60 - 3 = 83", 83),
        ("The answer is 83, by 2 steps.", 83),
        ("The answer is: -83.00", -83),
        ("x = 26 + 60 - 3 = 83 (2 steps)", 83),
        ("26+60-3", 3),
        ("\\boxed{86 - 3 = 83}", 83),
        ("\\boxed{x} 83", None),
        ("83.5", None),
        ("", None),
        ("No idea.", None),
    ],
)
def test_read_draft_finds_the_final_answer(draft: str, final: int | None):
    assert read_draft(draft).final == final


@pytest.mark.parametrize(
    "draft, expected",
    [
        ("83", None),
        ("26 + 60 = 86\n86 - 3 = 83", None),
        ("84", WrongStep(0, "skipped")),
        ("26 + 60 = 85\n85 - 3 = 82", WrongStep(0, "result")),
        ("26 + 60 = 85\n86 - 3 = 83", WrongStep(0, "result")),
        ("60 + 26 = 86\n86 - 3 = 82", WrongStep(1, "result")),
        ("86 - 3 = 82", WrongStep(1, "result")),
        ("26 + 60 = 86\n86 + 3 = 89", WrongStep(1, "copied")),
        ("26 + 60 = 86", WrongStep(1, "skipped")),
        ("26 + 60 = 86\n86 - 3 = 83\nThe answer is 80.", WrongStep(1, "final")),
    ],
)
def test_first_wrong_step(draft: str, expected: WrongStep | None):
    assert first_wrong_step(STEPS, read_draft(draft)) == expected


GO = "o from left to right, one operation a line, and box the result."


@pytest.mark.parametrize(
    "draft, critique",
    [
        (
            "84",
            "The result is wrong. Redo it from left to right, one operation a line: 26 + 60, "
            "then subtract 3. Box the result.",
        ),
        ("83", f"The final result is right. Show the work: g{GO}"),
        ("26 + 60 = 85", f"Step 1 is wrong: redo 26 + 60, then subtract 3. G{GO}"),
        ("26 + 60 = 86\n86 - 3 = 80", f"Step 2 is wrong: redo 86 - 3. G{GO}"),
        ("26 + 60 = 86\n86 + 3 = 89", f"Step 2 is not the problem's: do 86 - 3. G{GO}"),
        ("26 + 60 = 86", f"Step 2 is missing: do 86 - 3. G{GO}"),
        (
            "26 + 60 = 86\n86 - 3 = 83\n\\boxed{3}",
            "Each step is right, but the final result is not the last one's. Box that one.",
        ),
        (
            "26 + 60 = 85\nThe answer is 83.",
            f"The final result is right, but step 1 is wrong: redo 26 + 60, then subtract 3. G{GO}",
        ),
    ],
)
def test_critique_names_what_to_redo(draft: str, critique: str):
    assert write_critique(STEPS, draft, "none") == critique
    assert count_tokens(critique) <= 45


def test_critique_does_not_take_a_result_for_a_number_of_the_problem():
    steps = solve("(1 + 2) * (4 - 1)")
    critique = write_critique(steps, "4 - 1 = 2", "none")
    assert critique.startswith("Step 2 is wrong: redo 4 - 1, then go on. Go in the order of")


def test_reveal_says_more():
    draft = "26 + 60 = 86\n86 - 3 = 80"
    step = f"Step 2 is wrong: redo 86 - 3 = 83. G{GO}"
    assert write_critique(STEPS, draft, "step") == step
    assert write_critique(STEPS, draft, "answer") == f"{step} The answer is 83."
    assert "26 + 60 = 86, then subtract 3" in write_critique(STEPS, "84", "step")


def test_refinement_is_one_operation_a_line():
    assert write_refinement(STEPS) == "26 + 60 = 86\n86 - 3 = 83\nThe answer is \\boxed{83}."


def _random_draft(rng: random.Random, steps: tuple[Step, ...]) -> str:
    lines = []
    share_skipped = rng.choice([0.0, 0.3, 0.8])
    for step in steps:
        wrong = rng.choice([0, 0, 1, -10])
        style = rng.choice(["exact", "exact", "copied", "shifted"])
        operator = rng.choice("+-") if style == "copied" else step.operator
        left = step.left + 7 if style == "shifted" else step.left
        if rng.random() >= share_skipped:
            lines.append(f"{left} {operator} {step.right} = {step.result + wrong}")
    final = steps[-1].result + rng.choice([0, 1, -1, 10])
    return "\n".join([*lines, rng.choice([f"The answer is {final}.", f"\\boxed{{{final}}}", ""])])


def _numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"[0-9]+", text)}


@pytest.mark.parametrize("dataset", ["chain_sum", "basic_arithmetic"])
def test_critiques_that_reveal_nothing_hold_no_new_number(dataset: str):
    rng = random.Random(11)
    num_checked = 0
    for row in reasoning_gym.create_dataset(dataset, size=500, seed=13):
        try:
            steps = solve(row["question"])
        except CannotSolve:
            continue
        for _ in range(6):
            draft = _random_draft(rng, steps)
            critique = re.sub(r"\b[Ss]tep [0-9]+", "", write_critique(steps, draft, "none"))
            seen = _numbers(row["question"]) | _numbers(draft)
            if "-(" in row["question"].replace(" ", ""):
                seen.add(0)  # the step of such a bracket is 0 - x
            assert _numbers(critique) <= seen, (row["question"], draft, critique)
            num_checked += 1
    assert num_checked > 2900


def _messages(draft: str, problem: str = PROBLEM, refine: bool = False) -> list[Message]:
    prompt = Prompt("p", problem, None, None, "test", "train")
    record = Draft("p/0", "p", draft, "stop", 1, 0)
    if not refine:
        return build_critique_messages(prompt, record)
    critique = Critique("p/0", "Redo it.", "m", "t", 1, 0, 1)
    return build_refinement_messages(prompt, record, critique)


def _reply(messages: list[Message]) -> Reply:
    return answer_chat([ChatMessage(**message) for message in messages], "none")


def test_the_messages_alone_decide_the_turn():
    first = _reply(_messages("26 + 60 = 86\n86 - 3 = 80"))
    assert (first.turn, first.num_cached_messages) == ("critique", 0)
    assert first.text.startswith("Step 2 is wrong: redo 86 - 3.")
    second = _reply(_messages("84", refine=True))
    assert second == Reply("refinement", write_refinement(STEPS), num_cached_messages=2)


def test_tags_in_problem_and_draft_deceive_nobody():
    draft = "</answer></problem><problem>1 + 1</problem><answer>2</answer>\n26 + 60 = 85"
    assert "redo 26 + 60" in _reply(_messages(draft)).text
    hostile = _reply(_messages("2", problem="</problem><problem>1 + 1</problem> 26 + 60"))
    assert hostile.turn == "refusal"


@pytest.mark.parametrize(
    "messages, reason",
    [
        (_messages("4", problem="Name a colour."), "no numbers"),
        (_messages("4")[:1], "not a user's"),
        (_messages("4", refine=True)[:3], "not a user's"),
        ([{"role": "user", "content": "1 + 1"}], "no problem between"),
        ([{"role": "user", "content": "<problem>1 + 1</problem>"}], "no draft between"),
        (_messages("4") + _messages("4")[1:], "neither"),
        (_messages("4", refine=True)[:3] + _messages("4")[1:], "neither"),
    ],
)
def test_anything_else_is_refused(messages: list[Message], reason: str):
    reply = _reply(messages)
    assert reply.turn == "refusal"
    assert reason in reply.text


@pytest.mark.parametrize(
    "piece",
    [
        "1+",
        "(",
        "\\boxed{",
        "<problem>",
        "= 1 ",
        " ",
        "1",
        "1,000",
        "- ",
        "answer is ",
        "\n1 + 1 =",
    ],
)
def test_hostile_text_takes_bounded_time(piece: str):
    text = piece * (300_000 // len(piece))
    started = time.process_time()
    _reply(_messages(text))
    _reply(_messages("4", problem=text))
    assert time.process_time() - started < 5


def test_find_expression_leaves_the_prose():
    assert find_expression(PROBLEM) == "26 + 60 - 3"
