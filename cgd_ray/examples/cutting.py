"""Examples that are longer than a packed batch: rejected, or one part of them cut."""

from collections.abc import Sequence

Parts = list[list[int]]


def cut_end(parts: Sequence[list[int]], place: int, keep: int, max_tokens: int) -> Parts | None:
    """Return the parts of a document with the end of one cut, so that all fit.

    Args:
        parts: token ids, laid end to end.
        place: of the part that may be cut.
        keep: tokens that must be left of it.
        max_tokens: of the whole document.

    Returns:
        None if cutting that part is not enough.
    """
    excess = sum(map(len, parts)) - max_tokens
    left = len(parts[place]) - max(0, excess)
    if left < keep:
        return None
    return [part[:left] if i == place else part for i, part in enumerate(parts)]
