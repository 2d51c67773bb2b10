"""The audit of fifty of the tutor's critiques, read and labelled by hand, and of planted faults."""

from dataclasses import replace

import pytest

from cgd_ray.audit.rows import AuditRow
from cgd_ray.audit.summary import summarise
from cgd_ray.tutor.arithmetic import solve
from cgd_ray.tutor.feedback import write_critique, write_refinement
from tests.support.records import critique, refinement
from tests.support.tutor_sample import CHAINS, ROWS, audited


@pytest.fixture(scope="module")
def found() -> list[AuditRow]:
    return audited(CHAINS)


def test_the_sample_is_what_the_tutor_says() -> None:
    assert len(ROWS) == 50
    assert {row["reveal"] for row in ROWS} == {"none", "step", "answer"}
    for row in ROWS:
        steps = solve(row["prompt"])
        said = {
            "critique": write_critique(steps, row["draft"], row["reveal"]),
            "refinement": write_refinement(steps),
        }
        differ = [name for name, text in said.items() if text != row[name]]
        assert differ == ([row["planted"]] if row["planted"] else [])


def test_the_audit_is_what_a_reader_says(found: list[AuditRow]) -> None:
    told = [
        {
            "leak": row.answer_new,
            "verdict": row.verdict,
            "draft_right": row.draft_correct,
            "refinement_right": row.refinement_correct,
            "harmful": row.draft_correct and not row.refinement_correct,
        }
        for row in found
    ]
    assert told == [row["label"] for row in ROWS]


def test_the_figures_follow_from_the_labels(found: list[AuditRow]) -> None:
    labels = [row["label"] for row in ROWS]
    right = [label for label in labels if label["draft_right"]]
    wrong = [label for label in labels if not label["draft_right"]]
    agree = [(label["verdict"] == "right") == label["draft_right"] for label in labels]
    summary = summarise(found)
    expected = {
        "answer leaked": (sum(label["leak"] for label in labels), 50),
        "fix rate": (sum(label["refinement_right"] for label in wrong), len(wrong)),
        "harm rate": (sum(label["harmful"] for label in right), len(right)),
        "verdict accuracy": (sum(agree), 50),
    }
    for name, (number, of) in expected.items():
        figure = summary.figure(name)
        assert (figure.value, figure.num_rows) == (number / of, of), name
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= number / of <= figure.high


def test_leaks_rise_with_what_the_tutor_reveals(found: list[AuditRow]) -> None:
    def leaks(reveal: str) -> float:
        wrong = [
            row
            for row, told in zip(found, ROWS, strict=True)
            if told["reveal"] == reveal and not told["planted"] and not row.draft_correct
        ]
        return sum(bool(row.answer_new) for row in wrong) / len(wrong)

    assert leaks("none") == 0 < leaks("step") < leaks("answer")


def test_a_planted_leak_and_a_planted_harm_are_found(found: list[AuditRow]) -> None:
    target = next(
        i for i, row in enumerate(found) if row.draft_correct is False and not row.answer_stated
    )
    reference = ROWS[target]["reference"]
    worse = replace(
        CHAINS[target],
        critique=critique(f"{ROWS[target]['critique']} It is {reference}.0 in the end."),
    )
    fine = next(i for i, row in enumerate(found) if row.draft_correct and row.refinement_correct)
    harmed = replace(CHAINS[fine], refinement=refinement("So the answer is \\boxed{1000}."))
    chains = list(CHAINS)
    chains[target], chains[fine] = worse, harmed
    after = audited(chains)
    assert (found[target].answer_new, after[target].answer_new) == (False, True)
    assert (after[target].answer_position or 0) > 0.5
    assert (found[fine].refinement_correct, after[fine].refinement_correct) == (True, False)
    before, now = summarise(found), summarise(after)
    for name in ("answer leaked", "harm rate"):
        rise = (now.figure(name).value or 0) - (before.figure(name).value or 0)
        assert rise == pytest.approx(1 / before.figure(name).num_rows), name


def test_prompts_without_a_reference_are_audited_for_the_rest() -> None:
    unknown = [replace(c, prompt=replace(c.prompt, reference=None)) for c in CHAINS[:3]]
    rows = audited(unknown)
    assert {(row.draft_correct, row.answer_new, row.refinement_correct) for row in rows} == {
        (None, None, None)
    }
    summary = summarise(rows)
    assert (summary.num_chains, summary.num_with_reference) == (3, 0)
    assert summary.figure("fix rate").value is None
    assert summary.figure("says a verdict").value == 1
    assert summary.figure("specificity").num_rows == 3


def test_specific_critiques_are_told_from_general_ones(found: list[AuditRow]) -> None:
    named = [
        row.specificity for row, told in zip(found, ROWS, strict=True) if "redo" in told["critique"]
    ]
    general = [
        row.specificity
        for row, told in zip(found, ROWS, strict=True)
        if "Show the work" in told["critique"]
    ]
    assert sum(named) / len(named) > 2 * sum(general) / len(general)
    assert {row.duplicate for row in found} >= {None, "exact"}
