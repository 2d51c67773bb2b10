"""What a store is: objects by key, below one root."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cgd_ray.errors import UserError


class MissingKey(KeyError):
    """No object has this key."""


class StoreError(UserError):
    """The store did not answer, or refused, for longer than it is waited for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing shows it."""

    key: str
    num_bytes: int
    version: str  # changes when the content does: an ETag, or size and time of a file
    age_s: float = field(default=0.0, compare=False)  # since it was written, by the store's clock


class Store(Protocol):
    """Objects below one root. Keys are relative to it and use forward slashes."""

    root: str

    def get(self, key: str) -> bytes:
        """Return an object. Raises MissingKey."""
        ...

    def get_head(self, key: str, num_bytes: int) -> bytes:
        """Return the first bytes of an object, or all if it is shorter. Raises MissingKey."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object, atomically."""
        ...

    def put_new(self, key: str, data: bytes) -> bool:
        """Create an object; return False, changing nothing, if the key exists."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Put a file, of any size, as an object."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file. Raises MissingKey."""
        ...

    def check(self, setting: str) -> None:
        """Raise UserError, naming the setting, if the root cannot be used."""
        ...
