"""Pieces of an optimiser's state: shared out, cut, put together again."""

import pytest
import torch

from cgd_ray.training.pieces import WEIGHT, Piece, shared_out
from cgd_ray.training.state_files import _files_worth, _overlap, _take


def piece(length: int, start: int = 0, name: str = "w") -> Piece:
    values = torch.arange(start, start + length, dtype=torch.float32)
    return Piece(name, start, {WEIGHT: values, "exp_avg": -values})


@pytest.mark.parametrize("num_workers", [1, 2, 3, 7])
def test_shares_hold_every_element_once(num_workers: int) -> None:
    whole = [piece(10), piece(1, name="small"), piece(5, start=4, name="late")]
    found: dict[str, list[float]] = {}
    for rank in range(num_workers):
        for part in shared_out(whole, rank, num_workers):
            assert part.length > 0
            assert part.tensors[WEIGHT][0] == part.start
            assert torch.equal(part.tensors["exp_avg"], -part.tensors[WEIGHT])
            found.setdefault(part.name, []).extend(part.tensors[WEIGHT].tolist())
    assert found == {p.name: p.tensors[WEIGHT].tolist() for p in whole}


def test_views_write_through_and_copies_do_not() -> None:
    whole = piece(6)
    part, copy = whole.part(2, 4), whole.copy()
    part.tensors[WEIGHT].fill_(9)
    assert whole.tensors[WEIGHT].tolist() == [0, 1, 9, 9, 4, 5]
    assert copy.tensors[WEIGHT].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("start", "length", "taken"),
    [(0, 20, [4, 5, 6, 7]), (5, 2, [5, 6]), (0, 5, [4]), (7, 9, [7]), (0, 4, []), (8, 3, [])],
)
def test_a_saved_run_gives_what_it_has(start: int, length: int, taken: list[int]) -> None:
    mine = Piece("w", 4, {WEIGHT: torch.full((4,), -1.0)})
    number = _take(mine, WEIGHT, start, piece(length, start).tensors[WEIGHT])
    assert number == len(taken)
    assert [v for v in mine.tensors[WEIGHT].tolist() if v >= 0] == taken
    assert _overlap(mine, "other", start, length) == 0


def test_files_hold_every_piece_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgd_ray.training.state_files._FILE_BYTES", 100)
    pieces = [piece(n, name=str(n)) for n in (3, 5, 40, 1, 2, 30)]
    files = list(_files_worth(list(pieces)))
    assert [p for some in files for p in some] == pieces
    assert [[p.length for p in some] for some in files] == [[3, 5, 40], [1, 2, 30]]
