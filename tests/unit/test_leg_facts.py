"""What `benchmarks/leg_facts.py` counts, and the figures of it that documents quote."""

import json
from pathlib import Path

import pytest

from benchmarks.leg_facts import wrong_legs
from cgd_ray.tutor.legs import LEGS

REPO = Path(__file__).parents[2]


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


def test_documents_quote_the_committed_shares():
    path = max((REPO / "benchmarks" / "results").glob("leg-facts-*.json"))
    found = json.loads(path.read_text(encoding="utf-8"))
    ours, others = (
        found[side]["share_of_answers_with_wrong_legs"]["examples"] for side in ("ours", "baseline")
    )
    cgd, half = ours["cgd"], others["cgd_half_prompt_only"]["mean"]
    none = {others[name]["mean"] for name in ("cgd_no_critique", "distilled_sft")}
    assert len(none) == 1
    method = (REPO / "docs" / "method.md").read_text(encoding="utf-8")
    low, high = 100 * cgd["low"], 100 * cgd["high"]
    share = f"{100 * cgd['mean']:.1f} % of the answers ({low:.1f} to {high:.1f})"
    assert f"After cgd {share}" in method
    assert f"distilled_sft, {100 * none.pop():.1f} % (" in method
    assert f"gives wrong legs in {100 * half:.1f} %" in method
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert f"({100 * cgd['mean']:.0f} % of cgd's answers" in readme
    assert f"({100 * half:.1f} % wrong legs)" in readme
