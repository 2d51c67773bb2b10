"""Answers that are an option, a truth value or a fixed text: found and compared by own patterns."""

import re

from cgd_ray.evaluation.answers import final_text, marked_answer
from cgd_ray.evaluation.latex import clean, plain

_LABEL = r"(?:[A-Za-z]|\d{1,2})"
_OPTION = re.compile(
    rf"(?:option|choice)?\s*[(\[]?\s*({_LABEL})\s*[)\]]?\s*(?:[).:,].*|$)", re.I | re.S
)
_JOINED = r"\s*(?:,|;|/|\band\b|\bor\b)\s*"
_OPTIONS = re.compile(rf"[(\[]?\s*{_LABEL}\s*[)\]]?(?:{_JOINED}[(\[]?\s*{_LABEL}\s*[)\]]?)+", re.I)
_LEADING_OPTION = re.compile(
    r"(?:[Oo]ption|[Cc]hoice)?\s*(?:[(\[]\s*([A-Za-z])\s*[)\]]|([B-HJ-Z])\b)"
)
_IN_BRACKETS = re.compile(r"\(\s*([A-Za-z])\s*\)|\[\s*([A-Z])\s*\]")
_ALONE = re.compile(r"^[\s*]*(?:option\s+)?([A-Z]|\d{1,2})[\s*]*[.):]*[\s*]*$", re.M)
_CAPITAL = re.compile(r"(?<![\w'])([B-HJ-Z])(?![\w'])")
_TRUTH = re.compile(r"\b(not\s+)?(true|yes|false|no|correct|incorrect)\b", re.I)
_TRUE = {"true", "yes", "correct"}


def find_choice(response: str) -> str | None:
    """Return the option that a response picks, in upper case.

    Args:
        response: whole response.

    Returns:
        A letter or a number; "A, B" if several are picked; None if none is.
    """
    text = final_text(response)
    marked = marked_answer(text)
    if marked is not None:
        return _choice_in(plain(clean(marked)))
    for pattern in (_ALONE, _IN_BRACKETS, _CAPITAL):
        if found := list(pattern.finditer(text)):
            return (found[-1][1] or found[-1][found[-1].lastindex or 1]).upper()
    return None


def find_truth(response: str) -> str | None:
    """Return "true" or "false", as a response answers; "true, false" if it says both; else None.

    "yes" and "correct" are true, "no" and "incorrect" are false, "not" turns the word after it.
    """
    text = final_text(response)
    marked = marked_answer(text)
    words = list(_TRUTH.finditer(plain(marked) if marked else text))
    if not words and marked:
        return None
    values = [_truth(word) for word in words]
    if marked:
        return ", ".join(dict.fromkeys(values))
    return values[-1] if values else None


def find_text(response: str) -> str | None:
    """Return the marked answer of a response as plain text, else its last line with any text."""
    text = final_text(response)
    marked = marked_answer(text)
    lines = [line for line in text.splitlines() if line.strip()]
    found = marked if marked is not None else (lines[-1] if lines else None)
    return text_key(found) if found is not None else None


def text_key(text: str) -> str:
    r"""Return a text for comparing: without `\text{}`, quotes, bold and spaces around it."""
    return plain(text.replace("$", "").replace("**", "").replace("\\_", "_"))


def choice_key(gold: str) -> str:
    r"""Return the option that a gold answer such as "(B)" or "\text{B}" names."""
    return _choice_in(plain(clean(gold))) or plain(gold).upper()


def truth_key(gold: str) -> str:
    """Return "true" or "false" for a gold answer such as "Yes"; other text as it is."""
    match = _TRUTH.fullmatch(plain(gold))
    return _truth(match) if match else plain(gold).lower()


def is_choice(gold: str) -> bool:
    """Return whether a gold answer is the letter of an option, with or without brackets."""
    return bool(re.fullmatch(r"[A-Z]|[(\[][A-Za-z][)\]]", plain(clean(gold)).strip()))


def is_truth(gold: str) -> bool:
    """Return whether a gold answer is true, false, yes or no."""
    return bool(_TRUTH.fullmatch(plain(gold)))


def is_number(gold: str) -> bool:
    """Return whether a gold answer is a plain number."""
    return bool(re.fullmatch(r"-?[\d,]*\.?\d+(?:/\d+)?", gold.strip()))


def _choice_in(text: str) -> str | None:
    text = text.strip("* ")
    if several := _OPTIONS.fullmatch(text):
        labels = re.findall(rf"(?<![A-Za-z\d]){_LABEL}(?![A-Za-z\d])", several[0])
        return ", ".join(dict.fromkeys(label.upper() for label in labels))
    match = _OPTION.fullmatch(text) or _LEADING_OPTION.match(text)
    if match:
        return next(group for group in match.groups() if group).upper()
    found = list(_IN_BRACKETS.finditer(text))
    return (found[-1][1] or found[-1][2]).upper() if found else None


def _truth(match: re.Match[str]) -> str:
    value = (match[2].lower() in _TRUE) != bool(match[1])
    return "true" if value else "false"
