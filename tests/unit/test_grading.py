import gzip
import json
import multiprocessing
import os
import random
import threading
from pathlib import Path

import pytest

from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.evaluation.grading import grade, grade_exactly
from cgd_ray.evaluation.rationals import TooLargeError, parse_rational

ROOT = Path(__file__).parents[2]
CASES = [
    json.loads(line)
    for line in (ROOT / "tests/golden/grading_cases.jsonl").read_text("utf-8").splitlines()
]


def response_of(case):
    response = case["response"]
    if isinstance(response, str):
        return response
    return response.get("begin", "") + response["repeat"] * response["times"] + response["end"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_conformance(case):
    result = grade(case["gold"], response_of(case), case["kind"])
    if case.get("known_hole"):
        assert result.correct != case["correct"], "a known hole is closed: take its mark off"
    else:
        assert result.correct == case["correct"], result


def test_the_conformance_set_is_large_and_its_holes_are_few():
    assert len(CASES) >= 300
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert sum(case.get("known_hole", False) for case in CASES) <= 5


def test_a_response_that_is_cut_says_so():
    result = grade("42", "words " * 100_000 + r"\boxed{42}")
    assert result.correct
    assert "of 600010 characters were read" in result.reason


def test_an_answer_too_long_to_parse_is_wrong_and_short_in_the_record():
    result = grade("42", r"\boxed{" + "42+" * 2_000 + "0}")
    assert not result.correct
    assert result.extracted is not None
    assert len(result.extracted) == 1_000
    assert "limit is 1000" in result.reason


def test_relative_tolerance_is_the_data_sets_own():
    assert not grade("2.618", r"\boxed{2.6}").correct
    assert grade("2.618", r"\boxed{2.6}", relative_tolerance=0.01).correct
    assert grade("2.618", r"\boxed{\frac{5\pi}{6}}", relative_tolerance=0.01).correct
    assert grade("[2.618, 1]", r"\boxed{[2.6, 1]}", relative_tolerance=0.01).correct
    assert not grade("2.618", r"\boxed{2.5}", relative_tolerance=0.01).correct


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="'maths' is not one of math, choice, bool, exact"):
        grade("1", "1", kind="maths")
    with pytest.raises(ValueError, match="gold answer is empty"):
        grade(" ", "1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", "14"),
        ("-2^2", "-4"),
        ("2^{-2}", "1/4"),
        (r"0.1\overline{6}", "1/6"),
        (r"-3\frac{1}{2}", "-7/2"),
        ("1,234.5", "2469/2"),
        ("2(3+4)", "14"),
        ("(1/2)^2", "1/4"),
    ],
)
def test_rationals_are_exact(text, value):
    rational = parse_rational(text)
    assert rational is not None
    assert str(rational.value) == value


@pytest.mark.parametrize("text", ["", "x", "1/0", "1 2", "2^{1/2}", "(1", "((" * 99, "--", "1,23"])
def test_what_is_no_rational_is_none(text):
    assert parse_rational(text) is None


def test_a_power_tower_is_refused_and_not_computed():
    with pytest.raises(TooLargeError, match="limit is"):
        parse_rational("9^{9^{9^{9}}}")


def test_exact_grades_agree_with_full_ones_and_need_no_sympy():
    decided = [
        case for case in CASES if grade_exactly(case["gold"], response_of(case), case["kind"])
    ]
    assert len(decided) > len(CASES) // 2
    for case in decided:
        arguments = case["gold"], response_of(case), case["kind"]
        assert grade_exactly(*arguments) == grade(*arguments)


def test_pool_keeps_order_and_loses_only_the_item_that_hangs():
    hanging = r"\boxed{\int_0^{x} \sin(\cos(\tan(t^{t^{t}}))) dt + \binom{10^9}{5 \cdot 10^8}}"
    items = [
        GradeItem("x^2+1", r"\boxed{1+x^2}"),
        GradeItem("252", hanging),
        GradeItem("5", r"\boxed{5}"),
        GradeItem("x^2+1", r"\boxed{x^2-1}"),
        GradeItem("B", "the answer is (B)", "choice"),
    ]
    with GraderPool(1, timeout_s=3) as pool:
        grades = pool.grade_all(items)
    assert [result.correct for result in grades] == [True, False, True, False, True]
    assert grades[1].extracted is None
    assert grades[1].reason.startswith("timeout: ")


def test_a_pool_for_easy_answers_starts_no_process():
    before = set(multiprocessing.active_children())
    with GraderPool(2) as pool:
        grades = pool.grade_all([GradeItem("1/2", r"\boxed{0.5}"), GradeItem("7", "#### 8")])
        assert set(multiprocessing.active_children()) == before
    assert [result.correct for result in grades] == [True, False]


def test_grading_works_off_the_main_thread():
    found = []
    worker = threading.Thread(target=lambda: found.append(grade("x+1", r"\boxed{1+x}").correct))
    worker.start()
    worker.join()
    assert found == [True]


def load_or_skip(name, num_items):
    path = Path(os.environ.get("CGD_DATASETS", ROOT.parent / "shared" / "datasets")) / name
    if not path.exists():
        pytest.skip(f"no data set at {path}")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [json.loads(line) for line in data.splitlines()]
    return random.Random(0).sample(rows, num_items)


def test_gold_solutions_of_math_are_right():
    rows = load_or_skip("math/train.jsonl.gz", 150)
    wrong = [row["id"] for row in rows if not grade(row["answer"], row["solution"]).correct]
    assert len(wrong) <= 1, wrong


def test_marked_model_solutions_of_gsm8k_agree():
    for row in load_or_skip("gsm8k-model-solutions/test.jsonl.gz", 50):
        for solution in row["meta"]["model_solutions"].values():
            assert grade(row["answer"], solution["solution"]).correct == solution["is_correct"]


def test_gold_answers_of_olympiadbench_equal_themselves():
    for row in load_or_skip("olympiadbench/test.jsonl.gz", 50):
        assert grade(row["answer"], f"It is $\\boxed{{{row['answer']}}}$.").correct
