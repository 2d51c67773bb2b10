import math
import random
from functools import partial

import numpy as np
import pytest

from cgd_ray.evaluation.paired import (
    Comparison,
    compare_paired,
    compare_seeds,
    describe,
)
from cgd_ray.evaluation.statistics import (
    accuracy_interval,
    holm,
    mean_interval,
    mean_pass_at,
    pass_at_k,
)


def verdicts(both, wins, losses, neither):
    pairs = [(1, 1)] * both + [(0, 1)] * wins + [(1, 0)] * losses + [(0, 0)] * neither
    base = {f"p{i}": [bool(b)] for i, (b, _) in enumerate(pairs)}
    student = {f"p{i}": [bool(s)] for i, (_, s) in enumerate(pairs)}
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
    differences = [student[key][0] - base[key][0] for key in base]
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
        compare_paired({"a": [True], "b": [True]}, {"a": [True]})
    with pytest.raises(ValueError, match=r"7 prompt.* from the base: .* and 2 more"):
        compare_paired({}, {f"p{i}": [True] for i in range(7)})
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


def test_so_few_prompts_are_never_significant():
    result = compare_paired(*verdicts(0, 3, 0, 0))
    assert (result.low, result.high) == (1, 1)
    assert describe(result).startswith("not significant")
    assert describe(compare_paired(*verdicts(0, 9, 0, 0))).startswith("significantly better")


def test_among_several_comparisons_the_adjusted_p_decides():
    result = Comparison(0.03, 0.01, 0.05, 0.02, 9, 5, 100)
    assert describe(result, 0.04).startswith("significantly better")
    assert describe(result, 0.06) == (
        "not significant (+3.0 points, 95 % interval +1.0 to +5.0, p = 0.02, 0.06 by Holm; 9 won "
        "and 5 lost of 100 prompts)"
    )


def test_holm_is_the_published_procedure():
    # The values of R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer():
    from itertools import combinations

    for n, c in ((5, 2), (6, 0), (4, 4), (7, 3)):
        for k in range(1, n + 1):
            subsets = list(combinations([True] * c + [False] * (n - c), k))
            share = sum(map(any, subsets)) / len(subsets)
            assert pass_at_k(n, c, k) == pytest.approx(share)
    with pytest.raises(ValueError, match="pass@5 of 1 right in 4"):
        pass_at_k(4, 1, 5)


def test_pass_at_k_is_averaged_over_problems_of_as_many_answers():
    found = mean_pass_at({"a": [True, False, False], "b": [False] * 3})
    assert found == {1: pytest.approx(1 / 6), 2: pytest.approx(1 / 3), 3: 0.5}
    with pytest.raises(ValueError, match=r"as many answers to each problem, not \[1, 2\]"):
        mean_pass_at({"a": [True], "b": [True, False]})


def test_answers_to_one_problem_do_not_count_as_so_many_problems():
    alike = {f"p{i}": [i % 2 == 0] * 8 for i in range(40)}
    interval, single = mean_interval(alike), accuracy_interval([True] * 20 + [False] * 20)
    assert interval.mean == 0.5
    assert interval.high - interval.low == pytest.approx(single.high - single.low, abs=0.03)
    assert mean_interval({k: v[:1] for k, v in alike.items()}) == single
    assert mean_interval({"a": [True, True]}) == accuracy_interval([True])


def test_sign_flips_agree_with_every_flip_counted():
    base = {f"p{i}": [False, False] for i in range(10)}
    student = {f"p{i}": [True, i % 3 == 0] if i < 7 else [False] * 2 for i in range(10)}
    gains = [sum(student[key]) / 2 for key in base]
    sums = [sum(g if (bits >> i) & 1 else -g for i, g in enumerate(gains)) for bits in range(1024)]
    exact = sum(abs(s) >= sum(gains) - 1e-9 for s in sums) / 1024
    assert compare_paired(base, student).p == pytest.approx(exact, abs=0.003)


def runs_of(rng, chances, num_runs, spread):
    """Return verdicts of several trainings whose accuracies differ by `spread` (one sigma)."""
    shifts = rng.normal(0, spread, num_runs)
    return [
        {str(i): [bool(x)] for i, x in enumerate(rng.random(len(chances)) < chances + shift)}
        for shift in shifts
    ]


def test_seeds_widen_the_interval_as_students_t_does():
    rng = np.random.default_rng(1)
    chances = np.full(4000, 0.5)
    base, student = runs_of(rng, chances, 3, 0.05), runs_of(rng, chances + 0.1, 3, 0.05)
    means = [[np.mean(list(run.values())) for run in side] for side in (base, student)]
    error = math.sqrt(np.var(means[0], ddof=1) / 3 + np.var(means[1], ddof=1) / 3)
    result = compare_seeds(base, student)
    # The runs differ far more than 4,000 prompts could explain: Welch's t with about 4 degrees.
    assert result.num_seeds == (3, 3)
    assert result.mean == pytest.approx(np.mean(means[1]) - np.mean(means[0]))
    assert 2.7 < (result.high - result.mean) / error < 4.4
    single = compare_seeds(base[:1], student[:1])
    assert single.high - single.low < 0.5 * (result.high - result.low)


def test_one_run_each_is_students_t_over_prompts():
    base, student = verdicts(500, 150, 100, 250)
    by_runs, by_prompts = compare_seeds([base], [student]), compare_paired(base, student)
    assert by_runs.low == pytest.approx(by_prompts.low, abs=0.002)
    assert by_runs.p == pytest.approx(by_prompts.p, rel=0.2)
    assert compare_seeds([base], [base]).p == 1.0
    with pytest.raises(ValueError, match=r"1 prompt\(s\) are missing from the student run 2: b"):
        compare_seeds([{"a": [True], "b": [True]}], [{"a": [True], "b": [True]}, {"a": [True]}])


def test_two_runs_that_disagree_on_everything_leave_every_difference_open():
    never, always = verdicts(0, 50, 0, 0)
    result = compare_seeds([never], [never, always])
    assert (result.mean, result.low, result.high) == (0.5, -1.0, 1.0)


def _wilson_draw(rng):
    return accuracy_interval(list(rng.random(100) < 0.4)), 0.4


def _cluster_draw(rng):
    chances = rng.beta(1, 1.5, 100)
    verdicts = {str(i): list(rng.random(4) < p) for i, p in enumerate(chances)}
    return mean_interval(verdicts, seed=int(rng.integers(1 << 30)), num_resamples=1000), 0.4


def _paired_draw(rng):
    base = rng.beta(1, 1.5, 100)
    (first,), (second,) = runs_of(rng, base, 1, 0), runs_of(rng, 0.7 * base + 0.2, 1, 0)
    seed = int(rng.integers(1 << 30))
    return compare_paired(first, second, seed=seed, num_resamples=1000), 0.08


def _seeds_draw(num_runs, spread, rng):
    base = 0.2 + 0.5 * rng.beta(1, 1.5, 100)
    sides = (runs_of(rng, chances, num_runs, spread) for chances in (base, base + 0.1))
    return compare_seeds(*sides), 0.1


_SEEDS = {
    f"{num_runs} trainings that differ by {spread}": partial(_seeds_draw, num_runs, spread)
    for num_runs, spread in ((2, 0.05), (3, 0.0), (3, 0.05), (5, 0.03))
}
_DRAWS = {"wilson": _wilson_draw, "cluster": _cluster_draw, "paired": _paired_draw, **_SEEDS}


@pytest.mark.parametrize("draw", _DRAWS.values(), ids=_DRAWS)
def test_intervals_hold_the_truth_as_often_as_they_say(draw):
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        interval, truth = draw(rng)
        hits += interval.low <= truth <= interval.high
    assert 0.93 <= hits / 1000 <= 0.97
