r"""Response -> final answer: where in a worked solution the answer stands.

The first of these that is there wins, in the text after `</think>`: the last `\boxed` or `\fbox`
(boxes joined by "and", "or" or commas are one list), the last `####`, the last "answer is", the
last number or formula.
"""

import re
from collections.abc import Iterator

MAX_RESPONSE_CHARS = 200_000  # read from the end of a response; what is before it is ignored
MAX_BOX_CHARS = 10_000  # of a box that is never closed: enough to see that it is too long
MAX_BOXES = 64  # looked at, from the last one backwards

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=[\w$\\-]))")
_EMPTY_BOX = re.compile(r"\$?\\(?:boxed|fbox)\s*\{\s*\}\$?")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;.*]|\\[()\[\]]|\\quad|\\text\{\s*(?:,|and|or|,\s*and|,\s*or)\s*\}|\band\b|\bor\b)*"
)
_ANSWER_IS = re.compile(
    r"\banswers?\b(?:[^.\n:=]{0,60}?\b(?:is|are|be)\b|[^\S\n]*\*{0,2}[^\S\n]*[:=])"
    r"[^\S\n]*[:*]*\s*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|(?<!\\)\$((?:\\\$|[^$\n]){1,2000}?)(?<!\\)\$"
    r"|\\\(((?:(?!\\[()]).){1,2000}?)\\\)|(?<!\\)\\\[((?:(?!(?<!\\)\\[\[\]]).){1,2000}?)\\\]",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?<![\w.)\]])-?(?:\d{1,3}(?:,\d{3}){1,20}(?!\d)|\d{1,400})(?:\.\d{1,400})?(?:[eE][-+]?\d{1,4})?"
    r"(?:/\d{1,400})?(?:\s?%)?|(?<![\w.])-?\.\d{1,400}"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LIST_WORD = re.compile(r"(?:,|\band\b|\bor\b|\$|\s)+")


def final_text(response: str) -> str:
    """Return the part of a response in which its answer is sought.

    Args:
        response: whole response, with or without a `<think>` part.

    Returns:
        The text after the last `</think>`, at most the last `MAX_RESPONSE_CHARS` characters of it.
    """
    return response[-MAX_RESPONSE_CHARS:].rpartition("</think>")[2]


def marked_answer(text: str) -> str | None:
    """Return what is boxed, else what follows the last `####`, else the last "answer is".

    Args:
        text: what `final_text` returned.

    Returns:
        The marked text as it stands, one line or one box; None if nothing is marked.
    """
    if boxed := _boxed(text):
        return boxed
    _, hashes, after = text.rpartition("####")
    if hashes and (line := after.strip().partition("\n")[0].strip()):
        return line
    return _after_answer_is(text)


def formulas(text: str) -> list[tuple[int, int]]:
    """Return where the boxes and the formulas of a text begin and end, without their marks.

    Args:
        text: at most `MAX_RESPONSE_CHARS` characters.
    """
    boxes = [(text.index(content, start), content) for start, _, content in _boxes(text)]
    found = [(start, start + len(content)) for start, content in boxes]
    return sorted({*found, *(_inner_span(match) for match in _FORMULA.finditer(text))})


def numbers(text: str) -> list[tuple[int, int]]:
    """Return where the numbers of a text begin and end; percent signs and fractions are in them."""
    return [match.span() for match in _NUMBER.finditer(text)]


def extract_answer(response: str) -> str | None:
    """Return the final answer that a response gives, as it is written there.

    Args:
        response: whole response; only its last `MAX_RESPONSE_CHARS` characters are read.

    Returns:
        The answer, with several boxes joined by ", "; None if nothing looks like one.
    """
    text = final_text(response)
    if boxed := _boxed(text):
        return boxed
    if marked := marked_answer(text):
        return _without_prose(marked)
    return _last_formula_or_number(_EMPTY_BOX.sub("", text))


def _boxed(text: str) -> str | None:
    spans = list(_boxes(text))
    if not spans:
        return None
    chosen = [spans[0]]
    for span in spans[1:]:
        between = text[span[1] : chosen[0][0]]
        if not re.search(r",|\band\b|\bor\b", between) or not _BETWEEN_BOXES.fullmatch(between):
            break
        chosen.insert(0, span)
    return ", ".join(content for *_, content in chosen)


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, content) of the outermost boxes with content, the last one first."""
    spans: list[tuple[int, int, str]] = []
    reached = -1
    for match in list(_BOX.finditer(text))[-MAX_BOXES:]:
        if match.start() < reached:
            continue
        if (end := _box_end(text, match)) is None:
            continue
        reached = end
        content = text[match.end() : end].removesuffix("}" if match[0].endswith("{") else "")
        content = content.strip().removesuffix("$").removeprefix("$").strip()
        if inner := _BOX.match(content):
            content = content[inner.end() :].removesuffix("}").strip()
        if content:
            spans.append((match.start(), end, content))
    return reversed(spans)


def _box_end(text: str, opening: re.Match[str]) -> int | None:
    if not opening[0].endswith("{"):
        word = re.compile(r"\$?-?(?:\\frac\s*\w\s*\w|[\d.,/]*\d|\w)\$?").match(text, opening.end())
        return word.end() if word else None
    depth = 1
    limit = opening.end() + MAX_BOX_CHARS
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, opening.end(), limit):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return limit if len(text) > limit else None


def _after_answer_is(text: str) -> str | None:
    for match in reversed(list(_ANSWER_IS.finditer(text))):
        rest = text[match.end() : match.end() + MAX_BOX_CHARS]
        if formula := _FORMULA.match(rest):
            end = _SENTENCE_END.search(rest, formula.end())
        else:
            end = _SENTENCE_END.search(rest)
        sentence = rest[: end.start()] if end else rest
        if sentence := sentence.strip(" \t*_`"):
            return sentence
    return None


def _without_prose(marked: str) -> str:
    """Keep the formula or number of a sentence such as "that there are 42 apples"."""
    formulas = list(_FORMULA.finditer(marked))
    if formulas:
        around = _LIST_WORD.sub("", _FORMULA.sub("", marked))
        inner = [_inner(match) for match in formulas]
        return ", ".join(inner) if not around.strip(". ") else inner[0]
    if not _PROSE.search(_LIST_WORD.sub(" ", marked)) or "\\" in marked:
        return marked
    numbers = list(_NUMBER.finditer(marked))
    if not numbers or (len(numbers) > 1 and re.search(r"\b(?:and|or)\b", marked)):
        return marked
    if numbers[0].start() > 1:
        return numbers[-1][0]
    return marked if len(numbers) == 1 else numbers[0][0]


def _inner(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


def _inner_span(formula: re.Match[str]) -> tuple[int, int]:
    return next(formula.span(n) for n in range(1, 5) if formula[n] is not None)


def _last_formula_or_number(text: str) -> str | None:
    formula = max(_FORMULA.finditer(text), key=lambda match: match.end(), default=None)
    number = max(_NUMBER.finditer(text), key=lambda match: match.end(), default=None)
    if formula and (number is None or number.start() < formula.end()):
        return _inner(formula)
    return number[0].strip() if number else None
