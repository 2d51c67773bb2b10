"""(gold, response) -> grade: whether a response is right, and how that was found out.

Text, exact arithmetic and the structure of lists are compared first; what they cannot tell goes to
computer algebra (`symbolic`), which has no time limit here. Responses that nobody has vetted
should be graded by `grader_pool.GraderPool`, which gives the same verdicts and has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from cgd_ray.evaluation.answers import MAX_RESPONSE_CHARS, extract_answer
from cgd_ray.evaluation.choices import (
    choice_key,
    find_choice,
    find_text,
    find_truth,
    text_key,
    truth_key,
)
from cgd_ray.evaluation.comparing import Comparer, Symbolic
from cgd_ray.evaluation.latex import clean

MAX_ANSWER_CHARS = 1_000
MAX_NESTING = 40  # brackets inside brackets: the parser's time grows steeply with them
KINDS = ("math", "choice", "bool", "exact")


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one response."""

    correct: bool
    extracted: str | None  # the final answer found in the response
    reason: str  # how the verdict was reached, in words


def grade(gold: str, response: str, kind: str = "math", relative_tolerance: float = 0.0) -> Grade:
    """Grade one response, in this process and without a time limit.

    Args:
        gold: the reference answer, as the data set writes it (LaTeX without dollar signs).
        response: whole response; at most its last `MAX_RESPONSE_CHARS` characters are read, and
            the reason says so.
        kind: "math", "choice" (a letter or a number), "bool" (true, false, yes, no) or "exact"
            (text, but for case and spaces).
        relative_tolerance: for "math": how far a number may be off, as a share of the gold one.

    Returns:
        The verdict. A response without an answer, or with one too long to parse, is wrong.

    Raises:
        ValueError: `kind` is not one of `KINDS`, or the gold answer is empty.
    """
    exact = grade_exactly(gold, response, kind, relative_tolerance)
    return exact or grade_symbolically(gold, response, relative_tolerance)


def grade_exactly(
    gold: str, response: str, kind: str = "math", relative_tolerance: float = 0.0
) -> Grade | None:
    """Grade one response if that takes no computer algebra; else return None.

    Takes well under a millisecond and imports nothing heavy. Arguments as for `grade`.

    Raises:
        ValueError: `kind` is not one of `KINDS`, or the gold answer is empty.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    if not gold.strip():
        raise ValueError("the gold answer is empty: only prompts with a reference can be graded")
    if kind == "math":
        return _grade_math(gold, response, relative_tolerance, None)
    find, key = _BY_KEY[kind]
    found = find(response)
    if found is None:
        return Grade(False, None, _noted(f"no {kind} answer in the response", response))
    same = found.casefold() == key(gold).casefold()
    return Grade(same, found, _noted("same answer" if same else "different answer", response))


def grade_symbolically(gold: str, response: str, relative_tolerance: float = 0.0) -> Grade:
    """Grade one mathematical response, with computer algebra where nothing else can tell.

    Arguments as for `grade`. It can hang or fill the memory on hostile input.
    """
    # Kept out of the top: it takes over a second to import, and most answers do without.
    from cgd_ray.evaluation.symbolic import equal_symbolically

    verdict = _grade_math(gold, response, relative_tolerance, equal_symbolically)
    assert verdict is not None
    return verdict


_BY_KEY: dict[str, tuple[Callable[[str], str | None], Callable[[str], str]]] = {
    "choice": (find_choice, choice_key),
    "bool": (find_truth, truth_key),
    "exact": (find_text, text_key),
}


def _grade_math(
    gold: str, response: str, relative_tolerance: float, symbolic: Symbolic | None
) -> Grade | None:
    extracted = extract_answer(response)
    if extracted is None:
        return Grade(False, None, _noted("no answer in the response", response))
    if extracted != gold and (problem := _unparsable(extracted)):
        return Grade(False, extracted[:MAX_ANSWER_CHARS], _noted(problem, response))
    verdict = Comparer(relative_tolerance, symbolic).compare(clean(gold), clean(extracted))
    if verdict is None:
        return None
    how = "by computer algebra" if symbolic else "by text and exact arithmetic"
    words = f"{'equal' if verdict else 'not equal'} {how}"
    return Grade(verdict, extracted, _noted(words, response))


def _unparsable(answer: str) -> str | None:
    if len(answer) > MAX_ANSWER_CHARS:
        return f"answer of {len(answer)} characters: the limit is {MAX_ANSWER_CHARS}"
    depths = accumulate(1 if char in "([{" else -1 if char in ")]}" else 0 for char in answer)
    if (deepest := max(depths, default=0)) > MAX_NESTING:
        return f"answer with {deepest} brackets inside each other: the limit is {MAX_NESTING}"
    return None


def _noted(reason: str, response: str) -> str:
    if len(response) <= MAX_RESPONSE_CHARS:
        return reason
    return f"{reason} (only the last {MAX_RESPONSE_CHARS} of {len(response)} characters were read)"
