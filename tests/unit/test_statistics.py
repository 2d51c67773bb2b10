import math
import random

import pytest

from cgd_ray.evaluation.statistics import (
    Comparison,
    accuracy_interval,
    compare_paired,
    describe,
)


def verdicts(both, wins, losses, neither):
    pairs = [(1, 1)] * both + [(0, 1)] * wins + [(1, 0)] * losses + [(0, 0)] * neither
    base = {f"p{i}": bool(b) for i, (b, _) in enumerate(pairs)}
    student = {f"p{i}": bool(s) for i, (_, s) in enumerate(pairs)}
    return base, student


def test_wilson_interval_has_the_published_values():
    interval = accuracy_interval([True] * 81 + [False] * 182)  # Newcombe 1998, table I
    assert interval.mean == pytest.approx(81 / 263)
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_interval_stays_within_bounds_at_the_ends():
    none, all_right = accuracy_interval([False] * 20), accuracy_interval([True] * 20)
    assert (none.low, all_right.high) == pytest.approx((0, 1))
    assert none.high == pytest.approx(0.1611, abs=5e-5)
    with pytest.raises(ValueError, match="at least one"):
        accuracy_interval([])


def test_mcnemar_is_exact():
    assert compare_paired(*verdicts(10, 9, 1, 0)).p == pytest.approx(22 / 1024)
    assert compare_paired(*verdicts(10, 3, 3, 0)).p == 1.0
    assert compare_paired(*verdicts(10, 0, 0, 5)).p == 1.0
    assert compare_paired(*verdicts(0, 2000, 0, 0)).p < 1e-300


def test_bootstrap_interval_is_that_of_the_normal_limit():
    result = compare_paired(*verdicts(500, 150, 100, 250))
    n, mean = 1000, 0.05
    error = math.sqrt((250 / n - mean**2) / n)
    assert result.mean == pytest.approx(mean)
    assert result.low == pytest.approx(mean - 1.96 * error, abs=0.002)
    assert result.high == pytest.approx(mean + 1.96 * error, abs=0.002)
    assert (result.wins, result.losses, result.num_prompts) == (150, 100, 1000)


def test_bootstrap_is_the_same_as_drawing_prompts_one_by_one():
    base, student = verdicts(10, 8, 4, 8)
    rng = random.Random(1)
    differences = [student[key] - base[key] for key in base]
    means = sorted(sum(rng.choices(differences, k=30)) / 30 for _ in range(4000))
    result = compare_paired(base, student)
    assert result.low == pytest.approx(means[100], abs=0.035)
    assert result.high == pytest.approx(means[-101], abs=0.035)


def test_the_seed_fixes_the_interval_and_the_order_of_ids_does_not_matter():
    base, student = verdicts(37, 23, 11, 29)
    shuffled = dict(reversed(student.items()))
    assert compare_paired(base, student, seed=3) == compare_paired(base, shuffled, seed=3)


def test_missing_prompts_are_named():
    with pytest.raises(ValueError, match=r"1 prompt\(s\) are missing from the student: b"):
        compare_paired({"a": True, "b": True}, {"a": True})
    with pytest.raises(ValueError, match=r"7 prompt.* from the base: .* and 2 more"):
        compare_paired({}, {f"p{i}": True for i in range(7)})
    with pytest.raises(ValueError, match="no prompts"):
        compare_paired({}, {})


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.01, 0.05, "not significant"),
        (0.0, 0.04, "not significant"),
        (0.01, 0.05, "significantly better"),
        (-0.05, -0.01, "significantly worse"),
    ],
)
def test_describe_says_whether_it_is_significant(low, high, words):
    text = describe(Comparison((low + high) / 2, low, high, 0.04, 9, 5, 100))
    assert text.startswith(words)
    assert "9 won and 5 lost of 100 prompts" in text
