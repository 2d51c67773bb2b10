import time

import pytest

from cgd_ray.evaluation.answers import MAX_RESPONSE_CHARS, extract_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"So $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{3}, and then \boxed{4}", "4"),
        (r"\boxed{3} and \boxed{4}", "3, 4"),
        (r"$\boxed{1}$, $\boxed{2}$ or $\boxed{3}$", "1, 2, 3"),
        (r"\boxed{1}\text{ and }\boxed{2}", "1, 2"),
        (r"\fbox{7}", "7"),
        (r"\boxed 2", "2"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{42} \boxed{}", "42"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{41} but it was cut off at \boxed{4", "41"),
        ("<think>#### 3 or \\boxed{4}</think>\n#### 5", "5"),
        ("#### 17 dollars\nDone.", "17 dollars"),
        ("The answer is 42.", "42"),
        ("The answer is $x+1$, as above.", "x+1"),
        ("The answer is therefore 3.5 meters.", "3.5"),
        ("The answers are 2 and 3.", "2 and 3"),
        ("**Final answer:** 1,234.", "1,234"),
        ("The answer is orange.", "orange"),
        ("We get 40 + 2 = 42 in total", "42"),
        ("so x = -1.5e-3", "-1.5e-3"),
        ("thus it is $2x$", "2x"),
        ("I do not know.", None),
        ("", None),
        (r"\boxed{5}</think>", None),
    ],
)
def test_extract_answer(response, answer):
    assert extract_answer(response) == answer


def test_a_box_wins_over_every_other_marker():
    assert extract_answer("\\boxed{1}\n#### 2\nThe answer is 3. 4") == "1"
    assert extract_answer("The answer is 3.\n#### 2\n4") == "2"


def test_only_the_end_of_a_very_long_response_is_read():
    assert extract_answer("\\boxed{1}" + " x" * MAX_RESPONSE_CHARS) is None
    assert extract_answer("x " * MAX_RESPONSE_CHARS + "\\boxed{1}") == "1"


@pytest.mark.parametrize(
    "piece",
    ["\\boxed{", "(", "$", "{", "answer is ", "#### ", "1,", "-", "[", "\\(", "\\[", "\\$", "1"],
)
def test_hostile_repetition_takes_little_time(piece):
    start = time.monotonic()
    extract_answer(piece * (2_000_000 // len(piece)))
    assert time.monotonic() - start < 2
