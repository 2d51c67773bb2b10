"""Our verdicts beside those of others: lm-eval's and math-verify's own on gsm8k, and statistics.

    python -m benchmarks.evaluation_agreement --data ../shared/datasets

Needs, besides ours, `lm-eval`, `scipy` and `statsmodels`. The responses are the labelled answers of
four models to the test questions of gsm8k; nothing is generated.
"""

import argparse
import gzip
import hashlib
import heapq
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write_result
from cgd_ray.evaluation import paired
from cgd_ray.evaluation.grader_pool import GradeItem, GraderPool
from cgd_ray.evaluation.statistics import accuracy_interval, holm, mean_interval

_SOLUTIONS = "gsm8k-model-solutions/test.jsonl.gz"
_NUM_PROBLEMS = 200
_GOAL = 0.98
# Of lm-eval's task gsm8k: both of its filters, and what its metric ignores.
_FILTERS = {
    "lm_eval_strict": ("#### (\\-?[0-9\\.\\,]+)", 0),
    "lm_eval_flexible": ("(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
}
_IGNORED = [",", "\\$", "(?s).*#### ", "\\.$"]


def main() -> int:
    """Compare, write the result, and say whether every harness agrees often enough."""
    parser = argparse.ArgumentParser(description="Our verdicts beside those of others.")
    parser.add_argument("--data", type=Path, required=True, help="folder of evaluation sets")
    path: Path = parser.parse_args().data / _SOLUTIONS
    if not path.is_file():
        sys.exit(f"{path} is missing: --data names the folder that holds {_SOLUTIONS}")
    rows = chosen_rows(path)
    with GraderPool(2) as pool:
        grades = pool.grade_all([GradeItem(row["gold"], row["response"]) for row in rows])
    ours = [grade.correct for grade in grades]
    others = {"label": [row["label"] for row in rows], **harnesses(rows)}
    agreement = {
        name: sum(map(bool.__eq__, ours, found)) / len(rows) for name, found in others.items()
    }
    listed = {
        name: [
            shown(row, grade.extracted, grade.correct, verdict)
            for row, grade, verdict in zip(rows, grades, found, strict=True)
            if grade.correct != verdict
        ]
        for name, found in others.items()
    }
    statistics = statistics_against_scipy()
    worst = min(agreement[name] for name in others)
    passed = worst >= _GOAL and all(gap < 1e-6 for gap in statistics.values())
    written = write_result(
        "evaluation-agreement",
        "python -m benchmarks.evaluation_agreement --data DIR",
        {"num_problems": _NUM_PROBLEMS, "num_responses": len(rows), "right": sum(ours)},
        {name: sum(found) for name, found in others.items()},
        worst,
        {
            "agreement": {name: round(share, 4) for name, share in agreement.items()},
            "disagreements": listed,
            "largest_gap_to_scipy_and_statsmodels": statistics,
            "coverage_of_95_percent_intervals": coverage(),
        },
        passed=passed,
    )
    print(json.dumps({"agreement": agreement, "statistics": statistics}, indent=1))
    print(written)
    return 0 if passed else 1


def chosen_rows(path: Path) -> list[dict[str, Any]]:
    """Return the responses to 200 problems, those of the smallest hashes of their ids."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    few = heapq.nsmallest(
        _NUM_PROBLEMS, problems, key=lambda p: hashlib.sha256(p["id"].encode()).hexdigest()
    )
    # The solutions end with "A: 26"; lm-eval's strict filter wants the "#### 26" of the data set.
    return [
        {
            "id": f"{problem['id']}/{model}",
            "gold": problem["answer"],
            "response": "#### ".join(answer["solution"].rsplit("A: ", 1)),
            "label": answer["is_correct"],
        }
        for problem in few
        for model, answer in problem["meta"]["model_solutions"].items()
    ]


def harnesses(rows: list[dict[str, Any]]) -> dict[str, list[bool]]:
    """Return the verdicts of lm-eval and of math-verify with its own defaults."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter
    from math_verify import parse, verify

    found: dict[str, list[bool]] = {}
    for name, (pattern, group) in _FILTERS.items():
        taken = RegexFilter(pattern, group).apply([[row["response"]] for row in rows], [])
        found[name] = [
            bool(
                exact_match_hf_evaluate(
                    predictions=[texts[0]],
                    references=[row["gold"]],
                    regexes_to_ignore=_IGNORED,
                    ignore_case=True,
                )["exact_match"]
            )
            for texts, row in zip(taken, rows, strict=True)
        ]
    found["math_verify"] = [
        bool(verify(parse(f"${row['gold']}$"), parse(row["response"]))) for row in rows
    ]
    return found


def shown(row: dict[str, Any], extracted: str | None, ours: bool, theirs: bool) -> dict[str, Any]:
    """Return a disagreement as a person reads it: the data's own label tells who is right."""
    return {
        "id": row["id"],
        "gold": row["gold"],
        "end_of_response": row["response"][-80:],
        "our_extraction": extracted,
        "ours": ours,
        "theirs": theirs,
        "label": row["label"],
    }


def statistics_against_scipy() -> dict[str, float]:
    """Return the largest gap between each of our statistics and its reference."""
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    rng = np.random.default_rng(1)
    gaps = {"wilson": 0.0, "mcnemar": 0.0, "holm": 0.0, "student_t": 0.0, "one_run_each": 0.0}

    def note(name: str, ours: float, theirs: float) -> None:
        gaps[name] = max(gaps[name], abs(ours - theirs))

    for _ in range(100):
        n = int(rng.integers(2, 300))
        right = int(rng.integers(0, n + 1))
        interval = accuracy_interval([True] * right + [False] * (n - right))
        low, high = proportion_confint(right, n, method="wilson")
        note("wilson", interval.low, low)
        note("wilson", interval.high, high)
        base, student = (
            {str(i): [bool(x)] for i, x in enumerate(rng.random(n) < 0.5)} for _ in range(2)
        )
        c = paired.compare_paired(base, student, num_resamples=100)
        table = [[0, c.wins], [c.losses, 0]]
        note("mcnemar", c.p, float(mcnemar(table, exact=True).pvalue))
        ps = list(rng.random(int(rng.integers(1, 9))))
        for ours, theirs in zip(holm(ps), multipletests(ps, method="holm")[1], strict=True):
            note("holm", ours, theirs)
        freedom, t = float(rng.uniform(1.5, 300)), float(rng.uniform(0, 4))
        note("student_t", paired._t_p(t, freedom), 2 * stats.t.sf(t, freedom))
        note("student_t", paired._t_quantile(freedom), stats.t.ppf(0.975, freedom))
        if c.wins + c.losses:
            differences = [student[key][0] - base[key][0] for key in base]
            test = stats.ttest_1samp(differences, 0)
            by_runs = paired.compare_seeds([base], [student])
            if not math.isnan(test.pvalue):
                note("one_run_each", by_runs.p, test.pvalue)
                note("one_run_each", by_runs.low, test.confidence_interval().low)
    return gaps


def coverage(num_draws: int = 1000) -> dict[str, float]:
    """Return how often 95 % intervals over 100 prompts hold the truth that they were drawn from."""
    rng = np.random.default_rng(2)

    def wilson() -> bool:
        found = accuracy_interval(list(rng.random(100) < 0.4))
        return found.low <= 0.4 <= found.high

    def clusters() -> bool:
        chances = rng.beta(1, 1.5, 100)  # of mean 0.4
        drawn = {str(i): list(rng.random(4) < p) for i, p in enumerate(chances)}
        found = mean_interval(drawn, int(rng.integers(1 << 30)), 1000)
        return found.low <= 0.4 <= found.high

    def pairs() -> bool:
        base = rng.beta(1, 1.5, 100)
        first, second = (
            {str(i): list(rng.random(4) < p) for i, p in enumerate(chances)}
            for chances in (base, 0.7 * base + 0.2)
        )
        found = paired.compare_paired(first, second, int(rng.integers(1 << 30)), 1000)
        return found.low <= 0.08 <= found.high

    def seeds(num_runs: int, spread: float) -> Callable[[], bool]:
        def runs(chances: np.ndarray) -> list[dict[str, list[bool]]]:
            shifts = rng.normal(0, spread, num_runs)
            return [
                {str(i): [bool(x)] for i, x in enumerate(rng.random(100) < chances + shift)}
                for shift in shifts
            ]

        def one() -> bool:
            base = 0.2 + 0.5 * rng.beta(1, 1.5, 100)
            found = paired.compare_seeds(runs(base), runs(base + 0.1))
            return found.low <= 0.1 <= found.high

        return one

    draws = {
        "accuracy, one answer a prompt": wilson,
        "avg@4": clusters,
        "paired difference of avg@4": pairs,
        **{
            f"{num_runs} trainings each that differ by {100 * spread:.0f} points": seeds(
                num_runs, spread
            )
            for num_runs in (2, 3, 5)
            for spread in (0.0, 0.02, 0.05)
        },
    }
    return {name: sum(draw() for _ in range(num_draws)) / num_draws for name, draw in draws.items()}


if __name__ == "__main__":
    sys.exit(main())
