"""A problem's arithmetic, found in its text and solved exactly, one step at a time."""

import re
from dataclasses import dataclass

MAX_DIGITS = 18
MAX_TOKENS = 128  # numbers, operators and brackets of one expression; bounds the nesting too
MAX_RESULT_DIGITS = 40

_TYPOGRAPHY = str.maketrans(
    {
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{MIDDLE DOT}": "*",
        "\N{DIVISION SIGN}": "/",
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
    }
)
_ARITHMETIC = re.compile(r"[0-9+\-*/() \t]+")
_TOKEN = re.compile(r"[0-9]+|[+\-*/()]")
_NUMBER = re.compile(r"\d")
# What makes it more than integers with + - * /: 3 + 4x, x - 5, .5 + 1, 5! + 2, 2^3, 10%.
_MORE_BEFORE = re.compile(r"(?:[\w^√.]|\b\w\s{0,4})$")
_MORE_AFTER = re.compile(r"\w|\s{0,4}(?:[\^!%√]|\w\b)")


class CannotSolve(Exception):
    """The problem is of no kind that the tutor solves; one line says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on two integers."""

    left: int
    operator: str  # "+", "-", "*" or "/"
    right: int
    result: int
    words: str = ""  # what is counted, in a problem in words: "3 cats, 4 legs each"

    def __str__(self) -> str:
        """The operation without its result: "26 + 60"."""
        return f"{self.left} {self.operator} {self.right}"


def solve(problem: str) -> tuple[Step, ...]:
    """Return the steps of the problem's expression in evaluation order.

    Args:
        problem: a text with one expression in it, as "What is 26 + 60 - 3?".

    Raises:
        CannotSolve: no expression or more than numbers in it, other numbers beside it (a word
            problem), an inexact division, or numbers that are too long.
    """
    parser = _Parser(find_expression(problem))
    parser.parse()
    if not parser.steps:
        raise CannotSolve("the problem has a number and no operation on it")
    return tuple(parser.steps)


def find_expression(problem: str) -> str:
    """Return the only stretch of the text that has numbers in it, e.g. "26 + 60 - 3"."""
    text = problem.translate(_TYPOGRAPHY)
    stretches = [m for m in _ARITHMETIC.finditer(text) if _NUMBER.search(m.group())]
    if len(stretches) != 1:
        found = "no numbers" if not stretches else f"{len(stretches)} separate groups of numbers"
        raise CannotSolve(f"the problem has {found}, not one arithmetic expression")
    stretch = stretches[0]
    expression = stretch.group().strip()
    start = stretch.start() + stretch.group().index(expression)
    end = start + len(expression)
    before, after = text[max(0, start - 6) : start], text[end : end + 6]
    if _MORE_BEFORE.search(before) or _MORE_AFTER.match(after) or expression.startswith("- "):
        raise CannotSolve("the problem has more in it than integers with + - * / and brackets")
    if len(_NUMBER.findall(text)) != len(_NUMBER.findall(expression)):
        raise CannotSolve("the problem has numbers outside its expression")
    return expression


class _Parser:
    """Recursive descent over one expression; records each operation as it is carried out."""

    def __init__(self, expression: str) -> None:
        self.tokens = _TOKEN.findall(expression)
        self.position = 0
        self.steps: list[Step] = []
        if len(self.tokens) > MAX_TOKENS:
            raise CannotSolve(f"the expression has more than {MAX_TOKENS} numbers and signs")

    def parse(self) -> None:
        self._sum()
        if self._peek():
            raise CannotSolve(f"the expression has an unexpected {self._peek()!r}")

    def _peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self.position += 1
        return token

    def _sum(self) -> int:
        value = self._product()
        while self._peek() in ("+", "-"):
            value = self._apply(value, self._take(), self._product())
        return value

    def _product(self) -> int:
        value = self._factor()
        while self._peek() in ("*", "/"):
            value = self._apply(value, self._take(), self._factor())
        return value

    def _factor(self) -> int:
        token = self._take()
        if token == "-":
            bracketed = self._peek() == "("
            value = self._factor()
            return self._apply(0, "-", value) if bracketed else -value
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise CannotSolve("the expression has a bracket that is not closed")
            return value
        if not token.isdigit():
            raise CannotSolve(f"the expression has {token!r} where a number is due")
        if len(token) > MAX_DIGITS:
            raise CannotSolve(f"the expression has a number of more than {MAX_DIGITS} digits")
        return int(token)

    def _apply(self, left: int, operator: str, right: int) -> int:
        step = Step(left, operator, right, _compute(left, operator, right))
        self.steps.append(step)
        return step.result


def _compute(left: int, operator: str, right: int) -> int:
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    else:
        if right == 0:
            raise CannotSolve(f"{left} / 0 has no result")
        if left % right:
            raise CannotSolve(f"{left} / {right} is not an integer")
        result = left // right
    if abs(result) >= 10**MAX_RESULT_DIGITS:
        raise CannotSolve(f"a result has more than {MAX_RESULT_DIGITS} digits")
    return result
