"""What a student's draft claims: its equations, and its final answer."""

import itertools
import re
from dataclasses import dataclass

from cgd_ray.tutor.arithmetic import Step

_INTEGER = r"(-?[0-9]{1,30})"
_BINARY = re.compile(rf"\(?{_INTEGER}\)?\s*([+\-*/])\s*\(?{_INTEGER}\)?")
# A number that another operation follows is no result: in "= 86 - 3" nothing equals 86.
_ALONE = r"(?![0-9(]|\.[0-9]|\s*[+\-*/]\s*[0-9(-])"
_RESULT = re.compile(rf"\s*{_INTEGER}{_ALONE}")
_ARITHMETIC = "0123456789+-*/() \t"
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|[0-9]{1,2}[.):])\s+")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_TIMES = re.compile(r"(?<=[0-9] )[xX](?= [0-9])")  # in "3 x 4"
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = r"((?:(?<![0-9)])-)?[0-9]{1,30}(?:\.[0-9]{1,30})?)"
_FINAL = [
    re.compile(rf"\banswer(?: is)?:? {{0,3}}{_NUMBER}{_ALONE}", re.IGNORECASE),
    re.compile(rf"= {{0,3}}{_NUMBER}{_ALONE}"),
    re.compile(_NUMBER),
]
_SPELLINGS = {
    "**": "",
    "$": "",
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{DIVISION SIGN}": "/",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
}


@dataclass(frozen=True, slots=True)
class DraftClaims:
    """The arithmetic that a draft states, right or wrong."""

    equations: tuple[Step, ...]  # in the order of the text
    final: int | None  # None: no integer in the place of the final answer


def read_draft(draft: str) -> DraftClaims:
    """Return the equations of the form "a + b = c" and the final answer of a draft."""
    for spelling, plain in _SPELLINGS.items():
        draft = draft.replace(spelling, plain)
    draft = _TIMES.sub("*", _THOUSANDS.sub("", draft))
    boxes = _BOXED.findall(draft)
    draft = _BOXED.sub(lambda m: m.group(1), draft)
    equations = [e for line in draft.splitlines() for e in _equations(_BULLET.sub("", line, 1))]
    return DraftClaims(tuple(equations), _final_integer(boxes[-1] if boxes else draft))


def _equations(line: str) -> list[Step]:
    # Only two numbers on the left and one on the right make an equation: in "26 + 60 - 3 = 83"
    # nothing is claimed about 60 - 3.
    sides = line.split("=")
    found: list[Step] = []
    for left, right in itertools.pairwise(sides):
        stretch = left[len(left.rstrip(_ARITHMETIC)) :].strip(" \t()")
        operation, result = _BINARY.fullmatch(stretch), _RESULT.match(right)
        if operation and result:
            a, operator, b = operation.groups()
            found.append(Step(int(a), operator, int(b), int(result.group(1))))
    return found


def _final_integer(text: str) -> int | None:
    for pattern in _FINAL:
        numbers = pattern.findall(text)
        if numbers:
            match = re.fullmatch(r"(-?[0-9]+)(?:\.0+)?", numbers[-1])
            return int(match.group(1)) if match else None
    return None
