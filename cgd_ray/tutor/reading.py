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
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = r"((?:(?<![0-9)])-)?[0-9]{1,30}(?:\.[0-9]{1,30})?)"
_FINAL = [
    re.compile(rf"\banswer(?: is)?:? {{0,3}}{_NUMBER}{_ALONE}", re.IGNORECASE),
    re.compile(rf"= {{0,3}}{_NUMBER}{_ALONE}"),
    re.compile(_NUMBER),
]
# A problem in words. Where no answer is marked, "70 legs in total" is one, or the last "70 legs".
_TOTAL = (
    rf"{_NUMBER}{_ALONE} {{0,3}}legs? (?:in total|altogether|in all)\b"
    rf"|\btotal\b[^.\n=0-9]{{0,40}}{_NUMBER}{_ALONE}(?= {{0,3}}(?:legs?\b|[.,;!)\n]|$))"
)
_FINAL_IN_WORDS = [
    _FINAL[0],
    re.compile(_TOTAL, re.IGNORECASE),
    re.compile(rf"= {{0,3}}{_NUMBER}{_ALONE}|{_NUMBER}{_ALONE} {{0,3}}legs?\b", re.IGNORECASE),
    _FINAL[2],
]
_SIGNS_IN_WORDS = [
    (re.compile(r"(?<=[\w)])[ \t]{1,3}(?:x|times)[ \t]{1,3}(?=[0-9(])", re.IGNORECASE), " * "),
    (re.compile(r"(?<=[0-9])[xX](?=[0-9])"), " * "),
    (re.compile(r"(?<=[\w)])[ \t]{1,3}plus[ \t]{1,3}(?=[0-9(])", re.IGNORECASE), " + "),
    (re.compile(r"(?<=[0-9)])[ \t]{1,3}(?:is|equals|makes|gives)[ \t]{1,3}(?=[0-9])"), " = "),
    # What a number counts: "5 woodlouses * 14 legs each = 70".
    (re.compile(r"(?<=[0-9])(?=[^A-Za-z\n]{0,3}[A-Za-z])[A-Za-z/() ]{1,60}(?=[*+=])"), " "),
]
_ADDENDS = re.compile(r"[0-9]{1,30}(?:\s*\+\s*[0-9]{1,30}){2,}")
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
class LongSum:
    """A sum of three or more numbers in one go: "70 + 0 + 12 = 82"."""

    addends: tuple[int, ...]
    result: int


@dataclass(frozen=True, slots=True)
class DraftClaims:
    """The arithmetic that a draft states, right or wrong."""

    equations: tuple[Step, ...]  # in the order of the text
    final: int | None  # None: no integer in the place of the final answer
    long_sums: tuple[LongSum, ...] = ()  # in the order of the text


def read_draft(draft: str, in_words: bool = False) -> DraftClaims:
    """Return the equations of the form "a + b = c", the longer sums and the final answer.

    Args:
        draft: the student's whole answer.
        in_words: the problem is one in words: numbers may have names behind them ("14 legs") and
            signs may be spelt out ("5 x 14", "5 times 14 is 70").
    """
    for spelling, plain in _SPELLINGS.items():
        draft = draft.replace(spelling, plain)
    draft = _THOUSANDS.sub("", draft)
    boxes = _BOXED.findall(draft)
    draft = _BOXED.sub(lambda m: m.group(1), draft)
    final = _final_integer(boxes[-1] if boxes else draft, in_words)
    for pattern, sign in _SIGNS_IN_WORDS if in_words else []:
        draft = pattern.sub(sign, draft)
    claims = [c for line in draft.splitlines() for c in _claims(_BULLET.sub("", line, count=1))]
    equations = tuple(claim for claim in claims if isinstance(claim, Step))
    return DraftClaims(equations, final, tuple(c for c in claims if isinstance(c, LongSum)))


def _claims(line: str) -> list[Step | LongSum]:
    # Only two numbers on the left and one on the right make an equation: in "26 + 60 - 3 = 83"
    # nothing is claimed about 60 - 3.
    sides = line.split("=")
    found: list[Step | LongSum] = []
    for left, right in itertools.pairwise(sides):
        stretch = left[len(left.rstrip(_ARITHMETIC)) :].strip(" \t()")
        operation, result = _BINARY.fullmatch(stretch), _RESULT.match(right)
        if operation and result:
            a, operator, b = operation.groups()
            found.append(Step(int(a), operator, int(b), int(result.group(1))))
        elif result and _ADDENDS.fullmatch(stretch):
            addends = tuple(int(number) for number in stretch.split("+"))
            found.append(LongSum(addends, int(result.group(1))))
    return found


def _final_integer(text: str, in_words: bool) -> int | None:
    for pattern in _FINAL_IN_WORDS if in_words else _FINAL:
        numbers = ["".join(match.groups("")) for match in pattern.finditer(text)]
        if numbers:
            match = re.fullmatch(r"(-?[0-9]+)(?:\.0+)?", numbers[-1])
            return int(match.group(1)) if match else None
    return None
