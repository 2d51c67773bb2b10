"""Sets and indexes of many row keys, small enough to hand to every worker of a cluster.

A million keys of 19 bytes take 23 MB here and ten times that as a Python dictionary; Ray shares
the two arrays between the processes of a node without copies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """An immutable map from text keys to numbers."""

    keys: NDArray[np.bytes_]  # N keys as UTF-8, sorted
    numbers: NDArray[np.int32]  # N numbers, in the order of `keys`

    def __len__(self) -> int:
        """Return the number of different keys."""
        return len(self.keys)

    def __contains__(self, key: str) -> bool:
        """Return whether the index has the key."""
        return self.find([key])[0] is not None

    def find(self, keys: Sequence[str]) -> list[int | None]:
        """Return the number of each key; None where the index lacks it."""
        if not len(self.keys) or not keys:
            return [None] * len(keys)
        wanted = np.array([key.encode() for key in keys])
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = self.keys[places] == wanted
        return [int(self.numbers[p]) if ok else None for p, ok in zip(places, found, strict=True)]


def key_index(pairs: Iterable[tuple[str, int]]) -> KeyIndex:
    """Return an index; where a key comes twice, its first number stays."""
    # In pieces: Python's own strings take five times the room of the array.
    parts = [KeyIndex(np.array([], dtype="S1"), np.array([], dtype=np.int32))]
    rest = iter(pairs)
    while piece := list(islice(rest, _PIECE)):
        keys = np.array([key.encode() for key, _ in piece])
        parts.append(KeyIndex(keys, np.array([number for _, number in piece], dtype=np.int32)))
    return joined(parts)


def key_set(keys: Iterable[str]) -> KeyIndex:
    """Return an index used as a set: every number is 0."""
    return key_index((key, 0) for key in keys)


def joined(parts: Sequence[KeyIndex]) -> KeyIndex:
    """Return one index of one or more; where a key comes twice, its first number stays."""
    keys, first = np.unique(np.concatenate([part.keys for part in parts]), return_index=True)
    return KeyIndex(keys, np.concatenate([part.numbers for part in parts])[first])
