"""The tutor's words: the first wrong step of a draft, the critique and the refinement.

A critique names what to redo without doing it: a small student copies a number that it is given
and learns no sum. How much is given away is the setting `reveal`.
"""

from typing import Literal

from cgd_ray.tutor.arithmetic import Step
from cgd_ray.tutor.marking import WrongStep, first_wrong_step, is_chain, is_in_words, may_name
from cgd_ray.tutor.reading import read_draft

Reveal = Literal["none", "step", "answer"]

_VERB = {"+": "add", "-": "subtract", "*": "multiply by", "/": "divide by"}
_FAULT_TEXT = {
    "result": "is wrong: redo",
    "copied": "is not the problem's: do",
    "skipped": "is missing: do",
}


def write_critique(steps: tuple[Step, ...], draft: str, reveal: Reveal) -> str:
    """Return a critique of the draft.

    Args:
        steps: the problem's steps, as `solve` gives them.
        draft: the student's whole answer.
        reveal: "none": no result that the draft does not state correctly itself; "step": also the
            right result of the step to redo; "answer": also the final answer.
    """
    claims = read_draft(draft, is_in_words(steps))
    right = claims.final == steps[-1].result
    wrong = first_wrong_step(steps, claims)
    if wrong is None:
        text = f"The final result is right. Show the work: {_how(steps)}"
    elif wrong.fault == "final":
        text = "Each step is right, but the final result is not the last one's. Box that one."
    elif may_name(steps, claims, wrong.index):
        text = _critique_of_step(steps, wrong, right, reveal)
    else:
        text = _critique_of_whole(steps, reveal)
    return f"{text} The answer is {steps[-1].result}." if reveal == "answer" else text


def write_refinement(steps: tuple[Step, ...]) -> str:
    """Return the worked solution, one operation a line, with the result in a box."""
    lines = [f"{_named(step)} = {step.result}" for step in steps]
    return "\n".join([*lines, f"The answer is \\boxed{{{steps[-1].result}}}."])


def _named(step: Step) -> str:
    return f"{step.words}: {step}" if step.words else str(step)


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
    if is_in_words(steps):
        return "kind by kind"
    return "from left to right" if is_chain(steps, 0) else "in the order of operations"


def _redo(steps: tuple[Step, ...], index: int, reveal: Reveal) -> str:
    first = steps[index]
    if reveal != "none":
        words = [f"{_named(first)} = {first.result}"]
    elif first.words and first.right == steps[-1].result:
        # The legs of one may be the answer: 1 cat and 2 snakes have 4.
        words = [f"the legs of {first.words.partition(',')[0]}"]
    else:
        words = [_named(first)]
    if is_chain(steps, index):
        words += [f"then {_VERB[s.operator]} {s.right}" for s in steps[index + 1 :]]
    else:
        words.append("then go on")
    return ", ".join(words)
