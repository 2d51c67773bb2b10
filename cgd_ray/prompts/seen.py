"""The ids that a run has taken so far, and where, in 16 bytes a row.

A dictionary of a million ids takes some 200 MB; two sorted arrays take 16. New ids wait in a small
dictionary and are merged into the arrays when it is full.
"""

from array import array
from bisect import bisect_left

import numpy as np

_WAITING = 1 << 16
_NUMBER_BITS = 40  # rows of a file; the rest of a 64-bit place numbers the file


class SeenIds:
    """Prompt ids (16 hex digits: 64 bits), each with the file and number of its row."""

    def __init__(self) -> None:
        self._ids = array("Q")  # sorted
        self._places = array("Q")  # in the order of `_ids`
        self._waiting: dict[int, int] = {}
        self._files: dict[str, int] = {}

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self._ids) + len(self._waiting)

    def place(self, prompt_id: str) -> str | None:
        """Return `file:number` of the row with this id; None if there is none."""
        digest = int(prompt_id, 16)
        found = self._waiting.get(digest)
        if found is None:
            index = bisect_left(self._ids, digest)
            if index == len(self._ids) or self._ids[index] != digest:
                return None
            found = self._places[index]
        file = list(self._files)[found >> _NUMBER_BITS]
        return f"{file}:{found & (1 << _NUMBER_BITS) - 1}"

    def add(self, prompt_id: str, file: str, number: int) -> None:
        """Keep an id that is not there yet."""
        index = self._files.setdefault(file, len(self._files))
        self._waiting[int(prompt_id, 16)] = index << _NUMBER_BITS | number
        if len(self._waiting) >= _WAITING:
            self._merge()

    def _merge(self) -> None:
        num = len(self._waiting)
        ids = np.concatenate([self._ids, np.fromiter(self._waiting, np.uint64, num)])
        places = np.concatenate([self._places, np.fromiter(self._waiting.values(), np.uint64, num)])
        order = np.argsort(ids, kind="stable")  # merges sorted runs
        self._ids = array("Q", ids[order].tobytes())
        self._places = array("Q", places[order].tobytes())
        self._waiting.clear()
