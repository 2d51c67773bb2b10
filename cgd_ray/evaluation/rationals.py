r"""Arithmetic on whole numbers, fractions and decimals, exactly, as it is written in an answer.

A small recursive-descent parser: nothing that a model wrote is ever evaluated as code. It knows
+, -, *, /, powers, `\frac`, mixed numbers, scientific notation and repeating decimals; whatever
else an answer holds makes it None.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 1_000
MAX_DEPTH = 40
MAX_POWER_BITS = 200_000  # of a power's value

_TOKEN = re.compile(
    r"\s*(\d*\.\d*\\overline\s*\{\d+\}|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?"
    r"|\\frac|\\times|\\cdot|\\div|\*\*|[-+*/^(){}])"
)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_MIXED = re.compile(r"(-?\d+)\s+(\d+)\s*/\s*(\d+)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d+)\}")


@dataclass(frozen=True, slots=True)
class Rational:
    """A number that was written out."""

    value: Fraction
    is_decimal: bool  # written with a decimal point, so perhaps rounded


class TooLargeError(ValueError):
    """The text is arithmetic on a number of more bits than this module allows."""


class _NotRational(ValueError):
    """The text is no arithmetic, or too deeply nested."""


def parse_rational(text: str) -> Rational | None:
    """Return the exact value of a cleaned answer, if it is arithmetic on numbers alone.

    Args:
        text: LaTeX or plain text such as "1,234.5", "-3 1/2" or "2^{27} - 2^{11}".

    Returns:
        Its value; None if it holds anything else, is too long or too deeply nested.

    Raises:
        TooLargeError: a power in it has more than `MAX_POWER_BITS` bits.
    """
    if len(text) > MAX_CHARS or not text[-1:].strip():
        return None
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    if _SPACED_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    if mixed := _MIXED.fullmatch(text):
        text = rf"{mixed[1]}\frac{{{mixed[2]}}}{{{mixed[3]}}}"
    try:
        value = _Parser(_tokens(text)).whole()
    except (_NotRational, ZeroDivisionError):
        return None
    return Rational(value, "." in text)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _NotRational(text[at:])
        tokens.append(match[1])
        at = match.end()
    return tokens


class _Parser:
    """One pass over the tokens of one answer."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._at = 0
        self._depth = 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self._next():
            raise _NotRational(self._next())
        return value

    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise _NotRational(token)

    def _sum(self) -> Fraction:
        value = self._product()
        while self._next() in ("+", "-"):
            value = value + self._product() if self._take() == "+" else value - self._product()
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while True:
            if self._next() in ("*", "\\times", "\\cdot"):
                self._take()
                value *= self._signed()
            elif self._next() in ("/", "\\div"):
                self._take()
                value /= self._signed()
            elif self._next() in ("(", "\\frac"):
                value *= self._power()
            else:
                return value

    def _signed(self) -> Fraction:
        sign = 1
        while self._next() in ("-", "+"):
            sign = -sign if self._take() == "-" else sign
        return sign * self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if self._next() not in ("^", "**"):
            return base
        self._take()
        return _bounded_power(base, self._exponent())

    def _exponent(self) -> Fraction:
        sign = -1 if self._next() == "-" else 1
        if sign < 0:
            self._take()
        return sign * self._power()

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "\\frac":
            return self._group("{", "}") / self._group("{", "}")
        if token in ("(", "{"):
            self._at -= 1
            return self._group(token, ")" if token == "(" else "}")
        if not token[:1].isdigit() and not token.startswith("."):
            raise _NotRational(token)
        number = _number(token)
        if token.isdigit() and self._next() == "\\frac":
            self._take()
            number += self._group("{", "}") / self._group("{", "}")
        return number

    def _group(self, opening: str, closing: str) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _NotRational(opening)
        self._expect(opening)
        value = self._sum()
        self._expect(closing)
        self._depth -= 1
        return value


def _number(token: str) -> Fraction:
    if not (repeating := _REPEATING.fullmatch(token)):
        return Fraction(token)
    whole, fixed, period = repeating.groups()
    start = Fraction(int((whole + fixed) or "0"), 10 ** len(fixed))
    return start + Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))


def _bounded_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NotRational(str(exponent))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > MAX_POWER_BITS:
        raise TooLargeError(f"a power of {bits} bits and more: the limit is {MAX_POWER_BITS}")
    return base**exponent.numerator
