"""What `benchmarks/leg_facts.py` counts."""

import pytest

from benchmarks.leg_facts import wrong_legs
from cgd_ray.tutor.legs import LEGS


@pytest.mark.parametrize(
    ("response", "wrong"),
    [
        ("3 woodlouses, 14 legs each: 3 * 14 = 42\n2 cows, 4 legs each: 2 * 4 = 8", False),
        ("3 woodlouses have 4 legs each: 3 * 4 = 12", True),
        ("2 cows, 4 legs each: 2 * 4 = 8\n1 Spider, 6 legs: 1 * 6 = 6", True),
        ("2 shrimps have 10 legs each: 2 * 5 = 10", False),  # a slip, not a fact
        ("2 unicorns, 3 legs each: 2 * 3 = 6", False),  # nobody knows
        ("The answer is 12.", False),
    ],
)
def test_wrong_numbers_of_legs_are_counted_and_nothing_else(response, wrong):
    assert wrong_legs(response) is wrong


def test_no_right_answer_is_counted():
    assert not any(wrong_legs(f"7 {name}s, {legs} legs each: ...") for name, legs in LEGS.items())
