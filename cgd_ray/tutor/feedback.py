"""The tutor's words: the first wrong step of a draft, the critique and the refinement.

A critique names what to redo without doing it: a small student copies a number that it is given
and learns no sum. How much is given away is the setting `reveal`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cgd_ray.tutor.arithmetic import Step
from cgd_ray.tutor.reading import DraftClaims, read_draft

Reveal = Literal["none", "step", "answer"]
# result: a wrong sum; copied: another operation in its place; skipped: the work stops before it;
# final: each step is right and the final answer is not that of the last one.
Fault = Literal["result", "copied", "skipped", "final"]

_VERB = {"+": "add", "-": "subtract", "*": "multiply by", "/": "divide by"}
_FAULT_TEXT = {
    "result": "is wrong: redo",
    "copied": "is not the problem's: do",
    "skipped": "is missing: do",
}


@dataclass(frozen=True, slots=True)
class WrongStep:
    """Where a draft first goes wrong, counting steps from 0."""

    index: int
    fault: Fault


def first_wrong_step(steps: tuple[Step, ...], claims: DraftClaims) -> WrongStep | None:
    """Return the first step that the draft has wrong; None if nothing in it is wrong."""
    stated = _stated(steps, claims)
    last_stated = max((i for i, result in enumerate(stated) if result is not None), default=-1)
    for index, (step, result) in enumerate(zip(steps, stated, strict=True)):
        if result is not None and result != step.result:
            return WrongStep(index, "result")
    if claims.final == steps[-1].result:
        return None
    if last_stated == len(steps) - 1:
        return WrongStep(last_stated, "final")
    ours = {_canonical(step) for step in steps}
    strays = claims.equations and _canonical(claims.equations[-1]) not in ours
    return WrongStep(last_stated + 1, "copied" if strays else "skipped")


def write_critique(steps: tuple[Step, ...], draft: str, reveal: Reveal) -> str:
    """Return a critique of the draft.

    Args:
        steps: the problem's steps, as `solve` gives them.
        draft: the student's whole answer.
        reveal: "none": no result that the draft does not state correctly itself; "step": also the
            right result of the step to redo; "answer": also the final answer.
    """
    claims = read_draft(draft)
    right = claims.final == steps[-1].result
    wrong = first_wrong_step(steps, claims)
    if wrong is None:
        text = f"The final result is right. Show the work: {_how(steps)}"
    elif wrong.fault == "final":
        text = "Each step is right, but the final result is not the last one's. Box that one."
    elif _may_name(steps, claims, wrong.index):
        text = _critique_of_step(steps, wrong, right, reveal)
    else:
        text = _critique_of_whole(steps, reveal)
    return f"{text} The answer is {steps[-1].result}." if reveal == "answer" else text


def write_refinement(steps: tuple[Step, ...]) -> str:
    """Return the worked solution, one operation a line, with the result in a box."""
    lines = [f"{step} = {step.result}" for step in steps]
    return "\n".join([*lines, f"The answer is \\boxed{{{steps[-1].result}}}."])


def _critique_of_step(
    steps: tuple[Step, ...], wrong: WrongStep, right: bool, reveal: Reveal
) -> str:
    opening = "The final result is right, but step" if right else "Step"
    verdict = f"{opening} {wrong.index + 1} {_FAULT_TEXT[wrong.fault]}"
    return f"{verdict} {_redo(steps, wrong.index, reveal)}. {_how(steps).capitalize()}"


def _critique_of_whole(steps: tuple[Step, ...], reveal: Reveal) -> str:
    redo = _redo(steps, 0, reveal)
    return (
        f"The result is wrong. Redo it {_order(steps)}, one operation a line: {redo}. "
        "Box the result."
    )


def _how(steps: tuple[Step, ...]) -> str:
    return f"go {_order(steps)}, one operation a line, and box the result."


def _order(steps: tuple[Step, ...]) -> str:
    if steps[0].words:
        return "kind by kind"
    return "from left to right" if _is_chain(steps, 0) else "in the order of operations"


def _redo(steps: tuple[Step, ...], index: int, reveal: Reveal) -> str:
    first = steps[index]
    words = [str(first) if reveal == "none" else f"{first} = {first.result}"]
    if first.words:
        words = ["; ".join([*words, *(str(s) for s in steps[index + 1 :] if s.words)])]
        words += ["then add up"] if len(steps) > 1 else []
    elif _is_chain(steps, index):
        words += [f"then {_VERB[s.operator]} {s.right}" for s in steps[index + 1 :]]
    else:
        words.append("then go on")
    return ", ".join(words)


def _is_chain(steps: tuple[Step, ...], index: int) -> bool:
    """Return whether each step after `index` goes on from the one before with a given number."""
    if any(step.words for step in steps[index:]):
        return False  # each kind is counted by itself
    given = _given_numbers(steps)
    later = zip(steps[index:], steps[index + 1 :], strict=False)
    return all(b.left == a.result and given[b.right] > 0 for a, b in later)


def _given_numbers(steps: tuple[Step, ...]) -> Counter[int]:
    # Each result but the last is used exactly once by a later step; what is left is the problem's.
    used = Counter(number for step in steps for number in (step.left, step.right))
    return used - Counter(step.result for step in steps[:-1])


def _may_name(steps: tuple[Step, ...], claims: DraftClaims, index: int) -> bool:
    """Return whether a step's operands are the problem's numbers or ones the draft has right."""
    stated = _stated(steps, claims)
    if stated[index] is not None:
        return True
    known = {s.result for s, result in zip(steps, stated, strict=True) if result == s.result}
    known |= set(_given_numbers(steps))
    return index > 0 and {steps[index].left, steps[index].right} <= known


def _stated(steps: tuple[Step, ...], claims: DraftClaims) -> list[int | None]:
    """Return each step's result as the draft states it (its last word), None where it does not."""
    results = {_canonical(equation): equation.result for equation in claims.equations}
    return [results.get(_canonical(step)) for step in steps]


def _canonical(step: Step) -> tuple[str, tuple[int, ...]]:
    """Return the operation so that 5 - -3, 5 + 3 and 3 + 5 are the same."""
    if step.operator in ("+", "-"):
        right = step.right if step.operator == "+" else -step.right
        return "+", tuple(sorted((step.left, right)))
    if step.operator == "*":
        return "*", tuple(sorted((step.left, step.right)))
    return "/", (step.left, step.right)
