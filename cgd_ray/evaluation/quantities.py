"""Numbers with what qualifies them: a percent sign, a unit, the base they are written in."""

import re
from dataclasses import dataclass
from fractions import Fraction

from cgd_ray.evaluation.latex import plain
from cgd_ray.evaluation.rationals import Rational, parse_rational

_DECIMAL_PLACES = 6  # as math-verify rounds
_MAX_RELATIVE_ERROR = Fraction(1, 100_000)

_UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor))
    for dimension, names in {
        "length": {
            "mm millimeter millimetre": "0.001",
            "cm centimeter centimetre": "0.01",
            "m meter metre": "1",
            "km kilometer kilometre": "1000",
            "in inch inche": "0.0254",
            "ft foot feet": "0.3048",
            "yd yard": "0.9144",
            "mi mile": "1609.344",
        },
        "time": {"s sec second": "1", "min minute": "60", "h hr hour": "3600", "day": "86400"},
        "mass": {"mg": "0.000001", "g gram": "0.001", "kg kilogram": "1"},
        "money": {"cent": "0.01", "dollar usd": "1"},
        "angle": {"degree deg": "1"},
    }.items()
    for words, factor in names.items()
    for name in words.split()
}
_NOT_UNITS = {"pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "mod", "choose", "frac"}
_PERCENT = re.compile(r"(.*?)\s*(?:%|percent(?:age points?)?|per cent)")
_WITH_UNIT = re.compile(
    r"(.*[\d)}])\s+([A-Za-z][A-Za-z. ]*?(?:\s*/\s*[A-Za-z]+)?)(?:\s*\^\s*\{?(\d)\}?)?"
)
_WITH_BASE = re.compile(
    r"(-?[\dA-Fa-f]+)\s*_\s*\{?\s*(\d{1,2})\s*\}?|(-?\d+)\s*\(?\s*base\s+(\d{1,2})\)?"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and what qualifies it."""

    number: Rational
    is_percent: bool = False
    unit: str | None = None  # as written: in lower case, singular, with a power as "m^2"


def parse_quantity(text: str) -> Quantity | None:
    """Return the number, percent sign and unit of a cleaned answer; None if it is none."""
    text = plain(text).lstrip("$").strip()
    if percent := _PERCENT.fullmatch(text):
        number = parse_rational(percent[1])
        return Quantity(number, is_percent=True) if number else None
    if number := parse_rational(text):
        return Quantity(number)
    if (match := _WITH_UNIT.fullmatch(text)) and (unit := _unit(match[2], match[3])):
        number = parse_rational(match[1])
        return Quantity(number, unit=unit) if number else None
    return None


def equal_quantities(gold: Quantity, answer: Quantity, relative_tolerance: float) -> bool:
    """Return whether two quantities are equal.

    A percent sign on one side alone may be missing (12.5 for 12.5 %) or be worked out (0.125); a
    unit on one side alone is ignored. Decimals agree to six places and to 1 in 100,000; everything
    else must be exactly equal.

    Args:
        gold: the reference.
        answer: what is graded.
        relative_tolerance: the data set's own, as a share of the gold value; 0 for none.
    """
    scales = [Fraction(1)]
    if gold.is_percent != answer.is_percent:
        scales.append(Fraction(100) if gold.is_percent else Fraction(1, 100))
    if gold.unit and answer.unit and gold.unit != answer.unit:
        scales = _conversion(gold.unit, answer.unit)
    decimal = gold.number.is_decimal or answer.number.is_decimal
    return any(
        _equal(gold.number.value, answer.number.value * scale, decimal, relative_tolerance)
        for scale in scales
    )


def parse_base(text: str) -> tuple[str, int] | None:
    """Return the digits and the base of a number such as "1204_9"; None if it is none."""
    match = _WITH_BASE.fullmatch(plain(text))
    if not match:
        return None
    return (match[1] or match[3]).upper(), int(match[2] or match[4])


def equal_in_base(gold: str, answer: str) -> bool | None:
    """Return whether two numbers agree where at least one states its base.

    An answer without a base is read in the gold's; a gold without one is decimal.

    Returns:
        The verdict; None if neither states a base or one is no plain number.
    """
    gold_base, answer_base = parse_base(gold), parse_base(answer)
    if gold_base:
        digits = plain(answer).replace(" ", "").upper()
        if not answer_base and not re.fullmatch(r"-?[\dA-F]+", digits):
            return None
        return gold_base == (answer_base or (digits, gold_base[1]))
    if answer_base and 2 <= answer_base[1] <= 36 and (number := parse_rational(plain(gold))):
        return _in_base(*answer_base) == number.value
    return None


def _in_base(digits: str, base: int) -> int | None:
    valid = all(int(digit, 16) < base for digit in digits.lstrip("-"))
    return int(digits, base) if valid and len(digits) < 200 else None


def _unit(words: str, power: str | None) -> str | None:
    name = words.strip().lower().rstrip(".")
    singular = name if len(name) < 4 else name.removesuffix("s")
    known = singular in _UNITS or name in _UNITS
    if name in _NOT_UNITS or (len(name) < 3 and not known):
        return None
    if {"and", "or"} & set(name.split()):
        return None
    square, _, rest = singular.partition(" ")
    if square in ("square", "sq", "cubic") and rest:
        singular, power = rest.strip(), "3" if square == "cubic" else "2"
    return f"{singular}^{power}" if power else singular


def _conversion(gold: str, answer: str) -> list[Fraction]:
    """Return the factors that may turn the answer's unit into the gold's: none if it cannot be."""
    gold_name, _, gold_power = gold.partition("^")
    answer_name, _, answer_power = answer.partition("^")
    if gold_name not in _UNITS or answer_name not in _UNITS:
        return [Fraction(1)]
    (gold_dimension, to), (dimension, of) = _UNITS[gold_name], _UNITS[answer_name]
    if gold_dimension != dimension or gold_power != answer_power:
        return []
    return [(of / to) ** int(gold_power or 1)]


def _equal(gold: Fraction, answer: Fraction, decimal: bool, relative_tolerance: float) -> bool:
    if gold == answer:
        return True
    error = abs(gold - answer)
    if relative_tolerance and error <= Fraction(relative_tolerance) * abs(gold):
        return True
    near = error <= _MAX_RELATIVE_ERROR * abs(gold)
    return decimal and near and round(gold, _DECIMAL_PLACES) == round(answer, _DECIMAL_PLACES)
