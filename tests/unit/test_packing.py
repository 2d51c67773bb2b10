"""Packing: documents end to end, nothing cut, nothing lost, as tight as best fit makes it."""

import json
import random
from collections.abc import Callable, Sequence

import pytest

from cgd_ray.examples.packing import assign_rows, pack, padding_share, positions
from cgd_ray.records import Example

LENGTHS = [7, 3, 10, 5, 5, 2, 8, 1, 4, 6, 3, 9]


def examples(lengths: Sequence[int]) -> list[Example]:
    """Return examples whose tokens tell where they come from: 100 * document + place."""
    return [
        Example(f"d{i}", "cgd", tuple(100 * i + j for j in range(n)), (0,) * (n - 1) + (1,))
        for i, n in enumerate(lengths)
    ]


def slowly(lengths: Sequence[int], limit: int, max_documents: int | None) -> list[list[int]]:
    """Best-fit-decreasing as the books write it: look at every row, take the fullest that fits."""
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        free = [limit - sum(lengths[j] for j in row) for row in rows]
        fitting = [
            (left, number)
            for number, left in enumerate(free)
            if left >= lengths[index] and len(rows[number]) < (max_documents or 10**9)
        ]
        if fitting:
            rows[min(fitting)[1]].append(index)
        else:
            rows.append([index])
    return [sorted(row) for row in rows]


def test_the_layout_is_pinned(golden: Callable[[str, str], None]) -> None:
    lines = []
    for row in pack(examples(LENGTHS), 10, None):
        lines.append(
            json.dumps(
                {
                    "index": row.index,
                    "example_ids": row.example_ids,
                    "document_lengths": row.document_lengths,
                    "input_ids": row.input_ids,
                    "loss_mask": row.loss_mask,
                    "positions": positions(row.document_lengths),
                }
            )
        )
    golden("packed_layout.jsonl", "\n".join(lines) + "\n")


def test_by_hand() -> None:
    # 6 opens a row, 5 another; 4 fits the first exactly, 3 the second; 2 fills the second.
    assert assign_rows([3, 6, 2, 5, 4], 10, None) == [[1, 4], [0, 2, 3]]
    assert assign_rows([3, 6, 2, 5, 4], 10, 2) == [[1, 4], [0, 3], [2]]
    assert assign_rows([], 10, None) == []
    assert assign_rows([10, 10], 10, None) == [[0], [1]]


@pytest.mark.parametrize("seed", range(60))
def test_properties_on_random_lengths(seed: int) -> None:
    draw = random.Random(seed)
    limit = draw.choice([8, 16, 100])
    lengths = [draw.randint(1, limit) for _ in range(draw.randint(0, 120))]
    max_documents = draw.choice([None, 1, 2, 5])
    rows = assign_rows(lengths, limit, max_documents)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths))), "each once"
    assert all(sum(lengths[i] for i in row) <= limit for row in rows)
    assert all(row == sorted(row) and row for row in rows)
    if max_documents is not None:
        assert all(len(row) <= max_documents for row in rows)
    else:
        # Of any two rows the later could not have gone into the earlier.
        free = [limit - sum(lengths[i] for i in row) for row in rows]
        for number, row in enumerate(rows):
            assert all(left < max(lengths[i] for i in row) for left in free[:number])
    assert rows == slowly(lengths, limit, max_documents)


def test_packed_documents_are_whole_and_in_order() -> None:
    made = examples(LENGTHS)
    rows = pack(made, 10, None)
    assert [row.index for row in rows] == list(range(len(rows)))
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for row in rows:
        assert len(row.input_ids) == len(row.loss_mask) == sum(row.document_lengths) <= 10
        start = 0
        for name, length in zip(row.example_ids, row.document_lengths, strict=True):
            end = start + length
            seen[name] = (row.input_ids[start:end], row.loss_mask[start:end])
            start = end
    assert seen == {e.id: (e.input_ids, e.loss_mask) for e in made}


def test_one_document_a_row_turns_packing_off() -> None:
    rows = pack(examples(LENGTHS), 10, 1)
    assert sorted(len(row.example_ids) for row in rows) == [1] * len(LENGTHS)


def test_packing_is_deterministic() -> None:
    assert pack(examples(LENGTHS), 10, None) == pack(examples(LENGTHS), 10, None)


def test_positions_restart_at_every_document() -> None:
    assert positions([3, 1, 2]) == [0, 1, 2, 0, 0, 1]
    assert positions([]) == []


def test_the_share_of_padding() -> None:
    rows = pack(examples([10, 6, 4, 5]), 10, None)
    assert len(rows) == 3
    assert padding_share(rows, 10) == pytest.approx(5 / 30)
    assert padding_share([], 10) == 0.0
    assert padding_share(pack(examples([10, 10]), 10, None), 10) == 0.0
