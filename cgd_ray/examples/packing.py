"""Examples -> packed batches: best-fit-decreasing, deterministic, nothing cut.

A packed batch is stored without padding. Its documents keep their own positions and attention
(`document_lengths`), so its loss equals the loss of its examples one by one.
"""

import bisect
from collections.abc import Sequence

from cgd_ray.records import Example, PackedBatch

SHARD_ROWS = 1024  # packed batches in one stored file, which training fetches as a whole


def assign_rows(
    lengths: Sequence[int], sequence_length: int, max_documents: int | None
) -> list[list[int]]:
    """Return which documents share a row, by best-fit-decreasing.

    Args:
        lengths: tokens of each document, none above `sequence_length`.
        sequence_length: most tokens in a row.
        max_documents: most documents in a row; None: no limit.

    Returns:
        Rows of document indices, each row in the order of the documents.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (free tokens, row), sorted: best fit by bisection
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        place = bisect.bisect_left(open_rows, (length, -1))
        if place < len(open_rows):
            free, row = open_rows.pop(place)
        else:
            free, row = sequence_length, len(rows)
            rows.append([])
        rows[row].append(index)
        if free - length > 0 and (max_documents is None or len(rows[row]) < max_documents):
            bisect.insort(open_rows, (free - length, row))
    return [sorted(row) for row in rows]


def pack(
    examples: Sequence[Example], sequence_length: int, max_documents: int | None
) -> list[PackedBatch]:
    """Return the examples laid end to end in rows of at most `sequence_length` tokens."""
    lengths = [len(example.input_ids) for example in examples]
    rows = assign_rows(lengths, sequence_length, max_documents)
    return [_join(i, [examples[j] for j in row]) for i, row in enumerate(rows)]


def _join(index: int, documents: Sequence[Example]) -> PackedBatch:
    return PackedBatch(
        index=index,
        example_ids=tuple(d.id for d in documents),
        document_lengths=tuple(len(d.input_ids) for d in documents),
        input_ids=tuple(t for d in documents for t in d.input_ids),
        loss_mask=tuple(m for d in documents for m in d.loss_mask),
    )


def positions(document_lengths: Sequence[int]) -> list[int]:
    """Return each token's position within its own document."""
    return [position for length in document_lengths for position in range(length)]


def padding_share(rows: Sequence[PackedBatch], sequence_length: int) -> float:
    """Return the share of `len(rows) * sequence_length` places that hold no token, 0 to 1."""
    if not rows:
        return 0.0
    return 1.0 - sum(len(row.input_ids) for row in rows) / (len(rows) * sequence_length)
