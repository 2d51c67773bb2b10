"""Ways of writing the same answer in LaTeX, brought to one form, and lists taken apart."""

import re
from dataclasses import dataclass

_UNICODE = {
    **{chr(code): "-" for code in (0x2212, 0x2013, 0x2010, 0xFE63)},  # minus and its look-alikes
    chr(0xD7): r"\times ",
    chr(0xF7): r"\div ",
    chr(0xB7): r"\cdot ",
    chr(0xB0): "",  # degree
    chr(0xA0): " ",
    chr(0x202F): " ",
    chr(0x2009): " ",
    "π": r"\pi ",
    "∞": r"\infty ",
    chr(0x222A): r"\cup ",
    chr(0x2229): r"\cap ",
    "≤": r"\leq ",
    "≥": r"\geq ",
    "≠": r"\neq ",
    "±": r"\pm ",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "€": "",
    "£": "",
}
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"√\s*(\d+|[a-z])", r"\\sqrt{\1}"),
        (r"\\\$", ""),
        (r"\\%", "%"),
        (r"(?<!\\)\\[()\[\]]|\$|`", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*", ""),
        (r"\\(?:displaystyle|limits|boldmath)(?![A-Za-z])", ""),
        (r"(?<=\d)(?:,\s*\\!|\{,\})\s*(?=\d{3})", ""),
        (r"(?<!\\)\\(?:[!,;:> ]|q?quad(?![A-Za-z]))|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z])", ""),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\d)", r"\\frac\1{\2}"),
        (r"\\frac\s*\{", r"\\frac{"),
        (r"\\sqrt\s*(\d+)", r"\\sqrt{\1}"),
        (r"\\(?:le|leqslant)(?![A-Za-z])", r"\\leq"),
        (r"\\(?:ge|geqslant)(?![A-Za-z])", r"\\geq"),
        (r"\\lbrace(?![A-Za-z])\s*", r"\\{"),
        (r"\s*\\rbrace(?![A-Za-z])", r"\\}"),
    )
]
_TEXT = re.compile(
    r"\\(?:text(?:bf|rm|it|normal|tt|sf)?|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_JOINT = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[,;]"
)
# A "{" follows \begin and \end, and its "}" counts too: \begin{x} opens one level in all.
_BRACKET = re.compile(r"\\begin\{|\\end\{|\\langle|\\rangle|[()\[\]{}]")
_STEP = {
    "\\begin{": 2,
    "\\end{": 0,
    "\\langle": 1,
    "\\rangle": -1,
    **dict.fromkeys("([{", 1),
    **dict.fromkeys(")]}", -1),
}
MAX_SIGNS = 3  # each \pm doubles the list


@dataclass(frozen=True, slots=True)
class Collection:
    """An answer with several parts."""

    brackets: str  # "()", "[]", "(]", "[)", "{}" for a set, "" for a bare list
    elements: tuple[str, ...]


def clean(answer: str) -> str:
    r"""Return an answer without mark-up that means nothing: spacing, `$`, `\left`, degrees.

    Args:
        answer: LaTeX or plain text, at most a few thousand characters.

    Returns:
        LaTeX on one line, in which `\frac` always has braces.
    """
    for char, replacement in _UNICODE.items():
        answer = answer.replace(char, replacement)
    answer = re.sub(f"[{_SUPERSCRIPTS}]+", _power, answer)
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    return " ".join(answer.split()).rstrip(".,;: ").strip("* ")


def plain(answer: str) -> str:
    r"""Return a cleaned answer as text: `\text{...}` unwrapped, one space between words."""
    unwrapped = _TEXT.sub(r" \1 ", _TEXT.sub(r" \1 ", answer))
    return " ".join(unwrapped.split()).strip(" '\"").rstrip(".,;: ")


def compact(answer: str) -> str:
    """Return a cleaned answer as a key for comparing text: no spaces, no case of words."""
    text = plain(answer)
    words = re.fullmatch(r"[A-Za-z][A-Za-z' -]+", text)
    return re.sub(r"\s+", " " if words else "", text.lower() if words else text)


def split_collection(answer: str) -> Collection | None:
    r"""Return the parts of a cleaned list, set, tuple or interval; None for a single answer.

    A `\pm` is a list of two: "1 \pm 2" has the parts "1 + 2" and "1 - 2".
    """
    words = _TEXT.fullmatch(answer.strip())
    text = (words[1] if words else answer).strip()
    brackets = ""
    for opening, closing in (("\\{", "\\}"), ("\\langle", "\\rangle"), ("(", ")"), ("[", "]")):
        if text.startswith(opening) and text.endswith(closing):
            brackets = {"\\{": "{}", "\\langle": "()"}.get(opening, opening + closing)
            text_inside = text[len(opening) : -len(closing)]
            break
    else:
        if text[:1] in "([" and text[-1:] in ")]":
            brackets, text_inside = text[:1] + text[-1:], text[1:-1]
        else:
            text_inside = text
    if brackets and not _closes_last(text):
        brackets, text_inside = "", text
    parts = _split(text_inside)
    if brackets in ("", "{}"):
        parts = [sign for part in parts for sign in _signs(part)]
    if len(parts) < 2 and brackets != "{}":
        return None
    return Collection(brackets, tuple(parts))


def _power(match: re.Match[str]) -> str:
    digits = "".join("0123456789-"[_SUPERSCRIPTS.index(char)] for char in match[0])
    return f"^{{{digits}}}"


def _closes_last(text: str) -> bool:
    """Whether the bracket that opens a text is closed by its last one."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += _STEP[match[0]]
        if depth == 0:
            return match.end() == len(text)
    return False


def _split(text: str) -> list[str]:
    parts: list[str] = []
    begin = depth = 0
    pattern = re.compile(f"{_JOINT.pattern}|{_BRACKET.pattern}")
    for match in pattern.finditer(text):
        if (step := _STEP.get(match[0])) is not None:
            depth += step
            continue
        if depth == 0:
            parts.append(text[begin : match.start()])
            begin = match.end()
    return [stripped for part in [*parts, text[begin:]] if (stripped := part.strip())]


def _signs(part: str) -> list[str]:
    if "\\pm" not in part or part.count("\\pm") > MAX_SIGNS:
        return [part]
    plus = part.replace("\\pm", "+").replace("\\mp", "-").strip()
    minus = part.replace("\\pm", "-").replace("\\mp", "+").strip()
    return [plus.removeprefix("+").strip(), minus]
