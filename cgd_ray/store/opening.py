"""From an address to a store."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

from cgd_ray.errors import UserError
from cgd_ray.store.local import LocalStore
from cgd_ray.store.s3 import PATIENCE_S, S3Store

T = TypeVar("T")

_FETCHES = 16  # objects on their way at a time
_FETCH_AHEAD = 256  # and held, at most


def open_store(root: str, patience_s: float = PATIENCE_S) -> LocalStore | S3Store:
    """Return the store of a folder or of `s3://bucket/prefix`.

    Args:
        root: the address.
        patience_s: how long an S3 server that is away is asked again, in seconds.

    Raises:
        UserError: the address is of another kind.
    """
    if root.startswith("s3://"):
        if not urlparse(root).netloc:
            raise UserError(f"'{root}' names no bucket: write s3://bucket/prefix")
        return S3Store(root, patience_s)
    if "://" in root:
        raise UserError(f"'{root}' is neither a folder nor s3://bucket/prefix")
    return LocalStore(root)


def map_objects(function: Callable[[str], T], keys: Sequence[str]) -> Iterator[T]:
    """Yield `function` of every key, in order, several being on their way at a time."""
    with ThreadPoolExecutor(_FETCHES) as pool:
        for start in range(0, len(keys), _FETCH_AHEAD):
            yield from pool.map(function, keys[start : start + _FETCH_AHEAD])


def split_location(location: str) -> tuple[str, str]:
    """Return a root for `open_store`, and a key or glob below it, of a file's location."""
    if location.startswith("s3://"):
        parsed = urlparse(location)
        return f"s3://{parsed.netloc}", parsed.path.lstrip("/")
    path = Path(location).expanduser()
    fixed = path.parts[: next((i for i, p in enumerate(path.parts) if "*" in p), -1)]
    folder = Path(*fixed) if fixed else Path()
    return str(folder), str(path.relative_to(folder))
