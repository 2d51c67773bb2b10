"""What only computer algebra can decide: math-verify, with a guard on relative error after it.

Importing this file takes over a second (sympy). Nothing here has a time limit: an answer can hang
it or take all memory, which is why `grader_pool` runs it in processes that can be killed.
"""

import logging
import math

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, Expr, MatrixBase

Parsed = list[Basic | MatrixBase | str]

CONFIG = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
MAX_RELATIVE_ERROR = 1e-5

# It warns that its own time limit is off, once a process; the pool's limit stands in for it.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal_symbolically(gold: str, answer: str, relative_tolerance: float = 0.0) -> bool:
    """Return whether math-verify takes two answers for equal, and their values agree.

    Args:
        gold: the reference, as LaTeX without dollar signs. The comparison is not symmetric.
        answer: what is graded, likewise.
        relative_tolerance: how far a number may be off, as a share of the gold one.

    Returns:
        True if they are equal. Numbers must agree to 1 in 100,000, since math-verify's own
        tolerance is absolute and takes all tiny numbers for equal.
    """
    golds, answers = _parse(gold), _parse(answer)
    error = _relative_error(golds, answers)
    if verify(golds, answers, allow_set_relation_comp=True, timeout_seconds=None):
        return error is None or error <= MAX_RELATIVE_ERROR or "%" in gold + answer
    return error is not None and error <= relative_tolerance


def _parse(text: str) -> Parsed:
    return parse(f"${text}$", list(CONFIG), parsing_timeout=None)  # pyright: ignore[reportArgumentType]


def _relative_error(golds: Parsed, answers: Parsed) -> float | None:
    """Return how far a number is off, as a share of the gold one; None if either is no number."""
    gold, answer = next(iter(golds), None), next(iter(answers), None)
    if not isinstance(gold, Expr) or not isinstance(answer, Expr):
        return None
    if gold.free_symbols or answer.free_symbols:
        return None
    try:
        value = abs(complex(gold.evalf(30)))
        difference = abs(complex((gold - answer).evalf(30)))
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    if value == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / value
