"""Where a text may state a given answer: numbers, formulas and words, each with its place.

Whether a value equals the answer is the grader's to say (`leakage`). Names of steps ("step 2",
"1.") state nothing. Nor does an operation that is still to be done: "12 / 4" holds 12 and 4.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cgd_ray.curation.words import words
from cgd_ray.evaluation.answers import MAX_RESPONSE_CHARS, formulas, marked_answer, numbers
from cgd_ray.evaluation.choices import is_choice, is_truth
from cgd_ray.evaluation.latex import clean, plain, split_collection
from cgd_ray.evaluation.quantities import parse_quantity

Span = tuple[int, int]

# Spelt with as many characters, so that places stay what they are.
_SIGNS = str.maketrans(
    {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " "}
)
_NAMES = re.compile(
    r"\b(?:steps?|lines?|parts?|equations?|cases?|examples?)\s+\#?\d+"
    r"(?:\s*(?:,|and|or|to|-)\s*\d+)*\b|^[ \t]*\d{1,2}[.):](?=\s)",
    re.IGNORECASE | re.MULTILINE,
)
_SIDES = re.compile(r"[^=]+")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z]")
_FRACTION = re.compile(r"-?(?:\\[dt]?frac\s*\{(\d{1,18})\}\s*\{(\d{1,18})\}|(\d{1,18})/(\d{1,18}))")
_OPERATION = re.compile(r"\d\s*(?:[-+*/]|\\(?:times|cdot|div)(?![A-Za-z]))\s*-?\d")
_SCIENTIFIC = re.compile(r"\\(?:times|cdot)\s*10\s*\^")
_WHOLE = re.compile(r"\d+")
# What makes a number a part of something else: 2x, 3n, 1st, 2^3.
_GOES_ON = re.compile(r"(?:[a-eknxyzt]|st|nd|rd|th)\b|\s*[\^!]")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that stands in a text."""

    span: Span
    value: str
    same: bool = False  # it is the answer word for word: nothing is left to compare


def parts_of(reference: str) -> tuple[str, ...]:
    """Return the parts of a bare list or a set; of anything else, the answer itself.

    A list is stated where each of its parts is.
    """
    found = split_collection(clean(reference))
    if found and found.elements and found.brackets in ("", "{}") and not is_quantity(reference):
        return found.elements
    return (reference,)


def is_quantity(reference: str) -> bool:
    """Return whether an answer is a number, perhaps with a unit or a percent sign."""
    return parse_quantity(clean(reference)) is not None


def is_label(reference: str) -> bool:
    """Return whether an answer is an option's letter or a truth value: words that stand anywhere.

    Only where they are marked as an answer are they one.
    """
    return is_choice(reference) or is_truth(reference)


def candidates(reference: str, text: str) -> list[Candidate]:
    """Return what may state an answer in a text, in order.

    Args:
        reference: one answer, no list.
        text: only its first `MAX_RESPONSE_CHARS` characters are read.
    """
    text = text[:MAX_RESPONSE_CHARS].translate(_SIGNS)
    if is_label(reference):
        return list(_labels(reference, text))
    spans = formulas(text)
    found = [c for span in spans for c in _in_formula(text, span)]
    if is_quantity(reference):
        found = [c for c in found if _WHOLE.search(c.value)]  # no letter alone equals a number
        inside = [*spans, *(match.span() for match in _NAMES.finditer(text))]
        outside = [s for s in numbers(text) if not any(a <= s[0] < b for a, b in inside)]
        found += [c for span in outside for c in _number(text, span)]
    else:
        found += _runs(reference, text)
    return sorted(found, key=lambda c: (c.span, not c.same))


def _labels(reference: str, text: str) -> Iterator[Candidate]:
    label = plain(clean(reference)).strip("()[] ")
    marked = marked_answer(text)
    if marked is not None:
        start = text.rindex(marked) if marked in text else 0
        same = re.match(rf"\W*{re.escape(label)}\b", plain(clean(marked)), re.IGNORECASE)
        if same:
            yield Candidate((start, start + len(marked)), marked, same=True)
    if is_choice(reference):
        named = rf"\b(?:option|choice)\s+\(?{label}\b\)?|\({label}\)|\[{label}\]"
        for match in re.finditer(named, text, re.IGNORECASE):
            yield Candidate(match.span(), match[0], same=True)


def _in_formula(text: str, span: Span) -> Iterator[Candidate]:
    """Yield the sides of a formula, or the numbers of a side that is arithmetic to be done."""
    for match in _SIDES.finditer(text, *span):
        side = match[0].strip(" $&,.")
        start = match.start() + match[0].index(side)
        place = (start, start + len(side))
        if not side or _is_to_be_divided(side):
            yield from _numbers_in(text, place)
        elif _LETTER.search(_COMMAND.sub("", side)) or _is_one_value(side):
            yield Candidate(place, side)
        else:
            yield from _numbers_in(text, place)


def _numbers_in(text: str, place: Span) -> Iterator[Candidate]:
    for match in _WHOLE.finditer(text, *place):
        yield Candidate(match.span(), match[0])


def _number(text: str, span: Span) -> Iterator[Candidate]:
    start, end = span
    if text[start - 1 : start] in ("^", "_") or _GOES_ON.match(text, end):
        return
    if _is_to_be_divided(text[start:end]):
        yield from _numbers_in(text, span)
    else:
        yield Candidate(span, text[start:end])


def _is_to_be_divided(value: str) -> bool:
    fraction = _FRACTION.fullmatch(value)
    if not fraction:
        return False
    above, below = (int(digits) for digits in fraction.groups() if digits)
    return below != 0 and above % below == 0


def _is_one_value(side: str) -> bool:
    """Return whether a side without letters is no sum or product of plain numbers."""
    return bool(_FRACTION.fullmatch(side)) or not _OPERATION.search(_SCIENTIFIC.sub("", side))


def _runs(reference: str, text: str) -> Iterator[Candidate]:
    """Yield where the words and signs of an answer stand in a row."""
    units = words(plain(clean(reference)))
    if not any(_LETTER.search(unit) for unit in units):
        return
    between = r"[^\w+\-*/^=<>%]*"
    edge = r"(?<![\w])", r"(?![\w])"
    run = between.join(re.escape(unit) for unit in units)
    for match in re.finditer(f"{edge[0]}{run}{edge[1]}", text, re.IGNORECASE):
        yield Candidate(match.span(), match[0], same=True)
