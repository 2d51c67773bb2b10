"""Texts as words, so that case, spacing and punctuation do not hide that two are the same."""

import re
import unicodedata

_WORD = re.compile(
    # Scripts without spaces, sign by sign; other words and numbers; signs that change a problem.
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
    r"|[-+*/^=<>%]"
)


def words(text: str) -> list[str]:
    """Return the words, numbers and arithmetic signs of a text, in a normal form."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def runs(units: list[str], length: int) -> list[str]:
    """Return each run of `length` words, in order; a shorter text is one run."""
    last = max(len(units) - length, 0)
    return [" ".join(units[i : i + length]) for i in range(last + 1)]
