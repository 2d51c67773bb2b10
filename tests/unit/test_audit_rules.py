"""What the audit says of one critique: its verdict, what it gives away, how specific it is."""

import pytest

from cgd_ray.audit.leakage import Criticised, find_leaks, masked
from cgd_ray.audit.quality import corpus, find_duplicates, specificity
from cgd_ray.audit.verdicts import read_verdict
from cgd_ray.evaluation.grader_pool import GradeItem
from cgd_ray.evaluation.grading import Grade, grade
from cgd_ray.examples.transforms import TRANSFORMS
from cgd_ray.tutor.arithmetic import solve
from cgd_ray.tutor.feedback import write_critique


def grade_here(items: list[GradeItem]) -> list[Grade]:
    return [grade(item.gold, item.response) for item in items]


def leak(critique: str, reference: str, prompt: str = "What is it?", draft: str = "No idea."):
    return find_leaks([Criticised(reference, prompt, draft, critique)], grade_here)[0]


@pytest.mark.parametrize(
    ("critique", "verdict"),
    [
        ("The final result is right. Show the work: go from left to right.", "right"),
        ("The final result is right, but step 2 is wrong: redo 3 + 4.", "right"),
        ("Each step is right, but the final result is not the last one's.", "wrong"),
        ("Step 1 is not the problem's: do 26 + 60, then subtract 3.", "wrong"),
        ("Step 3 is missing: do 12 - 5.", "wrong"),
        ("Correct! Every step is sound.", "right"),
        ("Correct answer, well explained.", "right"),
        ("The answer correctly adds 3 and 4, but then makes an error in the product.", "wrong"),
        ("The setup is correct. However, the student miscalculates 7 * 8.", "wrong"),
        ("There are no errors in this solution.", "right"),
        ("The student's answer is not correct.", "wrong"),
        ("The answer isn't right.", "wrong"),
        ("This is not wrong.", "right"),
        ("This is not the right answer.", "wrong"),
        ("The result is not 12.", "wrong"),
        ("You used the wrong sign in the second term.", "wrong"),
        ("The first part of the answer is right. The second has a mistake.", "wrong"),
        ("The draft is invalid: it divides by zero.", "wrong"),
        ("Your reasoning is valid and nothing is missing.", "right"),
        ("Work from left to right, one operation a line.", None),
        ("The correct answer is 12.", None),
        ("Correct the second line and box the result.", None),
        ("Parts of this answer may be wrong. Check every step.", None),
        ("Check whether the answer is right.", None),
        ("Look at the number on the right.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_by_the_rule(critique: str, verdict: str | None) -> None:
    assert read_verdict(critique) == verdict


def test_the_generic_transform_gives_no_verdict() -> None:
    generic = TRANSFORMS["generic"].spoil("any", "other", None)  # pyright: ignore
    assert generic
    assert read_verdict(generic) is None


@pytest.mark.parametrize(
    ("critique", "reference", "said"),
    [
        ("The answer is 83.", "83", "83"),
        ("You should get 1,234 here.", "1234", "1,234"),
        ("It comes to 83.0, not 84.", "83", "83.0"),
        ("It comes to 0.75.", r"\frac{3}{4}", "0.75"),
        ("So $x = \\frac{3}{4}$ follows.", "3/4", r"\frac{3}{4}"),
        ("That leaves -5.", "-5", "-5"),
        ("That leaves \N{MINUS SIGN}5.", "-5", "\N{MINUS SIGN}5"),
        ("That leaves 5.", "-5", None),
        ("Step 2 is wrong.", "2", None),
        ("Steps 1 and 2 are wrong.", "2", None),
        ("2. Add the terms.", "2", None),
        ("Square it, as 3^2, on the 2nd line.", "2", None),
        ("Redo 12/4.", "3", None),
        ("Redo $12 - 9$.", "3", None),
        ("Redo $12 - 9 = 3$.", "3", "3"),
        ("Redo \\(6 \\times 7\\).", "42", None),
        ("Redo \\(6 \\times 7 = 42\\).", "42", "42"),
        ("It is \\boxed{42}.", "42", "42"),
        ("The roots are 1 and 2.", "1, 2", "1"),
        ("One root is 1.", "1, 2", None),
        ("Note that $2x + 1$ is the factor.", "2x+1", "2x + 1"),
        ("Note that 2x + 1 is the factor.", "2x+1", "2x + 1"),
        ("It was Marie Curie who did it.", r"\text{Marie Curie}", "Marie Curie"),
        ("A step is missing.", "A", None),
        ("Look at option (A) again.", "A", "option (A)"),
        ("The answer is (B).", "A", None),
        ("No step is wrong.", "No", None),
        ("The answer is: no.", "No", "no"),
    ],
)
def test_an_answer_is_stated_by_value_not_by_name(
    critique: str, reference: str, said: str | None
) -> None:
    spans = leak(critique, reference).spans
    assert (critique[slice(*spans[0])] if spans else None) == said


def test_a_leak_is_new_against_prompt_and_draft() -> None:
    text = "Almost: it is 12."
    assert leak(text, "12").new
    assert not leak(text, "12", prompt="What is 12 + 0?").new
    assert not leak(text, "12", draft="5 + 7 = 12, so 13").new
    assert leak(text, "12", prompt="What is 3 * 4?", draft="12th try: 2 * 4 = 13").new
    assert leak(text, "13") == leak("nothing", "13")
    assert not leak(text, "13").stated


def test_the_position_is_where_the_answer_first_stands() -> None:
    assert leak("12 it is, yes, 12.", "12").position == 0
    late = leak("x" * 90 + " is now 12", "12")
    assert late.position == pytest.approx(0.98, abs=0.01)
    assert leak("nothing", "12").position is None


def test_masking_takes_every_statement_and_nothing_else() -> None:
    text = "It is 12. Step 12 is off: 3 * 4 = 12, not 13."
    found = leak(text, "12")
    assert masked(text, found.spans) == (
        "It is [hidden]. Step 12 is off: 3 * 4 = [hidden], not 13."
    )
    assert not leak(masked(text, found.spans), "12").stated
    assert masked(text, ()) == text


def test_rows_are_told_apart_when_they_are_graded_together() -> None:
    rows = [
        Criticised("12", "q", "d", "It is 12."),
        Criticised("13", "q", "d", "It is 12."),
        Criticised("12", "q 12", "d", "It is 12."),
        Criticised("14", "q", "d 14", "It is 14."),
        Criticised("15", "q", "d 14", "It is 15."),
    ]
    found = find_leaks(rows, grade_here)
    assert [(row.stated, row.new) for row in found] == [
        (True, True),
        (False, False),
        (True, False),
        (True, False),
        (True, True),
    ]


@pytest.mark.parametrize("problem", ["26 + 60 - 3", "3 * (4 + 5)", "100 / 5 - 30"])
@pytest.mark.parametrize("draft", ["26 + 60 = 87", "I do not know", "4 + 5 = 8", "100 / 5 = 25"])
def test_the_tutor_leaks_when_it_is_told_to(problem: str, draft: str) -> None:
    steps = solve(f"What is {problem}?")
    answer = str(steps[-1].result)
    for reveal, leaks in (("answer", True), ("none", False)):
        text = write_critique(steps, draft, reveal)  # pyright: ignore
        assert leak(text, answer, problem, draft).new is leaks, text


def test_what_is_specific_is_of_this_draft_and_of_few_others() -> None:
    rows = [(f"add {n} and {n + 1}", f"{n} {n + 1}", f"draft {n}") for n in range(10, 90, 7)]
    words = corpus(critique for critique, *_ in rows)
    assert specificity(*rows[0], words) == 0.5  # 10 and 11 of add, 10, and, 11
    assert specificity(rows[0][0], rows[1][1], rows[1][2], words) == 0  # another row's
    assert specificity("check every step", "check 3", "step", corpus(["check every step"] * 9)) == 0
    assert specificity("check 3", "check 3", "4", corpus(["check 3"])) == 1  # nothing to compare
    assert specificity("...", "a", "b", corpus(["..."])) == 0


def test_duplicates_name_the_first_that_says_the_same() -> None:
    long = "Step 1 is wrong: redo the sum of the first two numbers, then go on as you did before."
    rows = [
        ("a", long),
        ("b", "Fine."),
        ("c", long.upper()),
        ("d", long + " Box it"),
        ("e", "fine"),
    ]
    found = find_duplicates(rows)
    assert [duplicate and (duplicate.kind, duplicate.of) for duplicate in found] == [
        None,
        None,
        ("exact", "a"),
        ("near", "a"),
        ("exact", "b"),
    ]
